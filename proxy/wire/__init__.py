"""The vendor's wire contract as values: what may be posted, what is answered, what the headers say.

Nothing here does I/O, keeps state or knows the time. Facts are those of Outlit's published Ingest API
reference and of what its client libraries are seen to send.
"""
