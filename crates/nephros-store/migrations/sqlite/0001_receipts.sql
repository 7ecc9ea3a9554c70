-- The log. A row never changes; `hash` covers all other columns, see src/chain.rs.
CREATE TABLE receipt_entries (
    position INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    model TEXT,
    bundle TEXT,
    preprocessing TEXT,
    engine TEXT,
    labels TEXT,
    about TEXT,
    note TEXT,
    commitment BLOB,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX receipt_entries_time ON receipt_entries (time_us);
CREATE INDEX receipt_entries_about ON receipt_entries (about);
-- What is about a person. An erasure deletes the row; the entry keeps the commitment to it.
CREATE TABLE receipt_details (
    position INTEGER NOT NULL PRIMARY KEY,
    salt BLOB NOT NULL,
    subject TEXT,
    image_sha256 BLOB,
    image_seal BLOB,
    label TEXT,
    probabilities BLOB,
    refer TEXT,
    reasons TEXT,
    verdict TEXT,
    reader TEXT,
    comment TEXT
) STRICT;
CREATE INDEX receipt_details_subject ON receipt_details (subject);
-- Encrypted images. No nonce is used twice with a key.
CREATE TABLE receipt_images (
    position INTEGER NOT NULL PRIMARY KEY,
    key_id BLOB NOT NULL,
    nonce BLOB NOT NULL,
    sealed BLOB NOT NULL,
    UNIQUE (key_id, nonce)
) STRICT;
-- One key a subject, or one an image that has no subject, wrapped by the master key.
CREATE TABLE receipt_keys (
    id BLOB NOT NULL PRIMARY KEY,
    subject TEXT UNIQUE,
    nonce BLOB NOT NULL UNIQUE,
    wrapped BLOB NOT NULL
) STRICT;
-- One row: where the log ends.
CREATE TABLE receipt_head (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    log BLOB NOT NULL,
    position INTEGER NOT NULL,
    hash BLOB NOT NULL,
    master TEXT
) STRICT;
