-- The log. A row never changes; `hash` covers all other columns, see src/chain.rs.
CREATE TABLE receipt_entries (
    position BIGINT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    time_us BIGINT NOT NULL,
    model TEXT,
    bundle TEXT,
    preprocessing TEXT,
    engine TEXT,
    labels TEXT,
    about TEXT,
    note TEXT,
    commitment BYTEA,
    previous BYTEA NOT NULL,
    hash BYTEA NOT NULL
);
CREATE INDEX receipt_entries_time ON receipt_entries (time_us);
CREATE INDEX receipt_entries_about ON receipt_entries (about);
-- What is about a person. An erasure deletes the row; the entry keeps the commitment to it.
CREATE TABLE receipt_details (
    position BIGINT NOT NULL PRIMARY KEY,
    salt BYTEA NOT NULL,
    subject TEXT,
    image_sha256 BYTEA,
    image_seal BYTEA,
    label TEXT,
    probabilities BYTEA,
    refer TEXT,
    reasons TEXT,
    verdict TEXT,
    reader TEXT,
    comment TEXT
);
CREATE INDEX receipt_details_subject ON receipt_details (subject);
-- Encrypted images. No nonce is used twice with a key.
CREATE TABLE receipt_images (
    position BIGINT NOT NULL PRIMARY KEY,
    key_id BYTEA NOT NULL,
    nonce BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    UNIQUE (key_id, nonce)
);
-- One key a subject, or one an image that has no subject, wrapped by the master key.
CREATE TABLE receipt_keys (
    id BYTEA NOT NULL PRIMARY KEY,
    subject TEXT UNIQUE,
    nonce BYTEA NOT NULL UNIQUE,
    wrapped BYTEA NOT NULL
);
-- One row: where the log ends.
CREATE TABLE receipt_head (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    log BYTEA NOT NULL,
    position BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    master TEXT
);
