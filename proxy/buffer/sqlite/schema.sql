-- The stored layout, version 1 (PRAGMA user_version).
-- Times are Unix milliseconds of the store's clock.

-- A public key: its gate and its books. accepted = held + delivered + dead + dropped, in every transaction.
CREATE TABLE key (
    id           INTEGER PRIMARY KEY,
    public_key   TEXT    NOT NULL UNIQUE,
    gate         BLOB    NOT NULL,
    succeeded    INTEGER NOT NULL DEFAULT 0,  -- 1: upstream has taken something of it
    accepted     INTEGER NOT NULL DEFAULT 0,
    delivered    INTEGER NOT NULL DEFAULT 0,
    dead         INTEGER NOT NULL DEFAULT 0,
    dropped      INTEGER NOT NULL DEFAULT 0,
    stored_bytes INTEGER NOT NULL DEFAULT 0,  -- of its runs and lanes, with overhead
    dead_bytes   INTEGER NOT NULL DEFAULT 0   -- of its dead letters, with overhead
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
    max_events  INTEGER NOT NULL,             -- how many events its next batch may hold
    touched_ms  INTEGER NOT NULL,             -- its last append
    UNIQUE (key_id, name)
);
CREATE INDEX queue_due ON queue (key_id, due_ms) WHERE held > 0;

-- A lane's header, once for each queue that holds events of it.
CREATE TABLE lane (
    queue_id INTEGER NOT NULL,
    lane     BLOB    NOT NULL,
    header   BLOB    NOT NULL,
    runs     INTEGER NOT NULL,
    PRIMARY KEY (queue_id, lane)
) WITHOUT ROWID;

-- The events of one request in one queue, or what is left of them: at most 100, stored as one row.
-- Within a queue the order of ids is the order of acceptance.
CREATE TABLE run (
    id          INTEGER PRIMARY KEY,
    queue_id    INTEGER NOT NULL,
    lane        BLOB    NOT NULL,             -- with every run: checked once more before the POST
    accepted_ms INTEGER NOT NULL,
    events      INTEGER NOT NULL,
    body        BLOB    NOT NULL              -- MessagePack: [[uuid, text], …]
);
CREATE INDEX run_of_queue ON run (queue_id);

-- Dedup ids of the last window, in two generations that take turns, so that forgetting is a truncation.
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

CREATE TABLE dead_letter (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id   INTEGER NOT NULL,
    queue    BLOB    NOT NULL,
    header   BLOB    NOT NULL,
    uuid     BLOB    NOT NULL,
    text     BLOB    NOT NULL,
    reason   TEXT    NOT NULL,
    message  TEXT    NOT NULL,
    attempts INTEGER NOT NULL,
    died_ms  INTEGER NOT NULL
);
CREATE INDEX dead_letter_of_key ON dead_letter (key_id);
