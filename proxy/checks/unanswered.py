"""What it means that Outlit gave no answer, in words that say what to see to."""

import errno
import os
import socket
import ssl

import aiohttp

from proxy.wire.answers import printable


def why(problem: Exception, within_s: float) -> str:
    """The end of a sentence that begins with upstream.url. `within_s`: how long it was waited for."""
    match problem:
        case aiohttp.ClientConnectorDNSError():
            return f"cannot be found ({_said(problem.os_error)}): correct upstream.url, or see to DNS"
        case aiohttp.ClientConnectorCertificateError():
            return (
                f"has a certificate that does not verify ({printable(str(problem.certificate_error))}): see"
                " to the system's authorities (ca-certificates), its clock, and who answers in Outlit's place"
            )
        case aiohttp.ClientConnectorSSLError():
            return f"speaks no TLS that fits ({_said(problem.os_error)}): is it the right port, or http://?"
        case aiohttp.ClientConnectorError():
            return (
                f"cannot be reached ({_said(problem.os_error)}): see to the network and its firewall; HTTP"
                " proxies of the environment are not used"
            )
        case TimeoutError():
            return f"did not answer within {within_s:g} s: see to the network and its firewall"
        case _:
            return (
                f"gave no answer ({printable(str(problem) or type(problem).__name__)}): is it an HTTP server?"
            )


def _said(problem: OSError) -> str:
    """The system's word where there is one: asyncio's own only repeats the address."""
    known = problem.errno in errno.errorcode and not isinstance(problem, ssl.SSLError | socket.gaierror)
    return printable(os.strerror(problem.errno or 0) if known else problem.strerror or str(problem))
