-- The stored layout, version 2 (PRAGMA user_version).
-- Times are Unix milliseconds of the store's clock.

-- A public key: its gate and its books. accepted = held + delivered + dead + dropped, in every transaction.
CREATE TABLE key (
    id           INTEGER PRIMARY KEY,
    public_key   TEXT    NOT NULL UNIQUE,
    gate         BLOB    NOT NULL,             -- MessagePack
    succeeded    INTEGER NOT NULL DEFAULT 0,  -- 1: upstream has taken something of it
    accepted     INTEGER NOT NULL DEFAULT 0,
    delivered    INTEGER NOT NULL DEFAULT 0,
    dead         INTEGER NOT NULL DEFAULT 0,
    dropped      INTEGER NOT NULL DEFAULT 0,
    stored_bytes INTEGER NOT NULL DEFAULT 0,  -- of its runs and lanes, with overhead
    dead_bytes   INTEGER NOT NULL DEFAULT 0,  -- of its dead letters, with overhead
    batches      INTEGER NOT NULL DEFAULT 0,  -- ever recorded, the ambiguous ones aside
    ambiguous    INTEGER NOT NULL DEFAULT 0   -- ever recorded as ambiguous
);

-- A queue outlives its last event by the dedup window. AUTOINCREMENT: an id never comes back, so that what
-- was seen of a queue that is gone is never taken for another's.
CREATE TABLE queue (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id      INTEGER NOT NULL,
    name        BLOB    NOT NULL,             -- the queue's identity, 16 bytes
    held        INTEGER NOT NULL,             -- events in its runs
    due_ms      INTEGER NOT NULL,
    token       BLOB,                         -- of its lease, which ends at due_ms; NULL: not leased
    backing_off INTEGER NOT NULL DEFAULT 0,   -- 1: due_ms is a wait that no append may shorten
    attempts    INTEGER NOT NULL DEFAULT 0,   -- failed tries of the present head
    expired     INTEGER NOT NULL DEFAULT 0,   -- leases in a row that ended by themselves, none settled since
    unsettled   INTEGER NOT NULL DEFAULT 0,   -- events of the head that may have arrived with those
    max_events  INTEGER NOT NULL,             -- how many events its next batch may hold
    trouble     BLOB    NOT NULL DEFAULT x'', -- MessagePack; empty: none
    touched_ms  INTEGER NOT NULL,             -- its last append
    UNIQUE (key_id, name)
);
CREATE INDEX queue_due ON queue (key_id, due_ms) WHERE held > 0;
CREATE INDEX queue_empty ON queue (touched_ms) WHERE held = 0;

-- A lane's header, once for each queue that holds events of it.
CREATE TABLE lane (
    queue_id INTEGER NOT NULL,
    lane     BLOB    NOT NULL,
    header   BLOB    NOT NULL,
    runs     INTEGER NOT NULL,
    PRIMARY KEY (queue_id, lane)
) WITHOUT ROWID;

-- The events of one request in one queue, or what is left of them: at most 100, stored as one row.
-- The order of ids is the order of acceptance, of what died too: none is given twice while a letter has it.
CREATE TABLE run (
    id          INTEGER PRIMARY KEY,
    queue_id    INTEGER NOT NULL,
    lane        BLOB    NOT NULL,             -- with every run: checked once more before the POST
    accepted_ms INTEGER NOT NULL,
    events      INTEGER NOT NULL,
    uuids       BLOB    NOT NULL,             -- 16 bytes an event
    places      BLOB,                         -- a byte an event: its place in the run at first; NULL: 0, 1, …
    lengths     BLOB    NOT NULL,             -- of the events' texts, 4 bytes each, little-endian
    packed      INTEGER NOT NULL,             -- 1: the body is a zstd frame
    body        BLOB    NOT NULL,             -- the events' texts, end to end
    checksum    BLOB    NOT NULL              -- 8 bytes over uuids, lengths and body
);
CREATE INDEX run_of_queue ON run (queue_id);

-- Dedup ids of the last window, in two generations that take turns: the older one is emptied, then written.
CREATE TABLE seen_0 (
    queue_id INTEGER NOT NULL,
    dedup_id INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (queue_id, dedup_id)
) WITHOUT ROWID;
CREATE TABLE seen_1 (
    queue_id INTEGER NOT NULL,
    dedup_id INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (queue_id, dedup_id)
) WITHOUT ROWID;
CREATE TABLE seen_turn (
    current    INTEGER NOT NULL,              -- the generation that is written: 0 or 1
    since_ms   INTEGER NOT NULL
);

-- Written to find out whether the disk takes writes.
CREATE TABLE probe (
    probed     INTEGER NOT NULL               -- how often
);

CREATE TABLE dead_letter (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id         INTEGER NOT NULL,
    queue          BLOB    NOT NULL,
    header         BLOB    NOT NULL,
    uuid           BLOB    NOT NULL,
    text           BLOB    NOT NULL,
    reason         TEXT    NOT NULL,
    message        TEXT    NOT NULL,
    attempts       INTEGER NOT NULL,
    first_tried_ms INTEGER NOT NULL,
    died_ms        INTEGER NOT NULL,
    run_id         INTEGER NOT NULL,          -- with its place: where it stood among the accepted
    place          INTEGER NOT NULL
);
CREATE INDEX dead_letter_order ON dead_letter (run_id, place);
CREATE INDEX dead_letter_of_key ON dead_letter (key_id);
CREATE INDEX dead_letter_uuid ON dead_letter (uuid);

-- What became of each batch, in rings: id = (2 · key id + ambiguous) · 2³² + number mod the ring's size.
CREATE TABLE batch (
    id         INTEGER PRIMARY KEY,
    number     INTEGER NOT NULL,              -- of its kind and key, from 0
    settled_ms INTEGER NOT NULL,
    answered   TEXT,
    uuids      BLOB    NOT NULL,              -- 16 bytes an event
    fates      BLOB    NOT NULL               -- a letter an event
);
