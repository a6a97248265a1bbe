-- What the payment network tells: cents, seconds, and the card's number as it has it.
CREATE TABLE authorizations (
    txn varchar(40) NOT NULL,
    pan bigint NOT NULL,
    ts timestamp NOT NULL,
    cents bigint NOT NULL,
    mcc smallint NOT NULL,
    land varchar(2),
    mode int NOT NULL,
    parts smallint NOT NULL DEFAULT 1,
    CHECK (txn != ''),
    CONSTRAINT pan_has_18_digits CHECK (pan BETWEEN 100000000000000000 AND 999999999999999999),
    CHECK (cents BETWEEN 1 AND 100000000),
    CHECK (mode BETWEEN 0 AND 3),
    CHECK (parts BETWEEN 1 AND 36),
    CONSTRAINT small_sums_are_paid_at_once CHECK (parts = 1 OR cents >= 5000)
) WITH (
    topic = 'network.authorizations', key = 'pan', event_time = 'ts', request_id = 'txn', timestamp_format = 'epoch_s'
);

INSERT INTO payments (payment_id, card, paid_at, amount, merchant, country, entry, instalments)
SELECT
    txn,
    pan,
    ts,
    cents / 100.0,
    CASE WHEN mcc < 3000 THEN 'shop' WHEN mcc < 4800 THEN 'travel' ELSE concat('mcc', string(mcc)) END,
    ifnull(land, '??'),
    CASE mode WHEN 0 THEN 'chip' WHEN 1 THEN 'stripe' WHEN 2 THEN 'web' ELSE 'phone' END,
    parts
FROM authorizations;

-- What happens around the card: logins and disputes, with the bank's local times as texts.
CREATE TABLE card_activity (
    card_number bigint NOT NULL,
    moment timestamp NOT NULL,
    what varchar(8) NOT NULL,
    device varchar(24),
    success bool,
    disputed_cents int,
    CHECK (what IN ('login', 'dispute')),
    CONSTRAINT a_login_succeeds_or_not CHECK (what != 'login' OR NOT isnull(success)),
    CHECK (disputed_cents > 0)
) WITH (
    topic = 'bank.activity', key = 'card_number', event_time = 'moment', partitioned = TRUE,
    timestamp_format = 'iso-8601'
);

INSERT INTO logins
SELECT card_number AS card, moment AS at, device, CASE WHEN success THEN 0 ELSE 1 END AS failed
FROM card_activity
WHERE what = 'login';

INSERT INTO chargebacks
SELECT card_number AS card, moment AS filed_at, disputed_cents / 100.0 AS amount
FROM card_activity
WHERE what = 'dispute';

-- The cards themselves.
CREATE TABLE card_master (
    no bigint NOT NULL,
    changed_ms timestamp NOT NULL,
    tier string NOT NULL,
    country varchar(2),
    limit_usd int,
    opened date,
    CHECK (tier IN ('basic', 'gold', 'black')),
    CHECK (limit_usd >= 0)
) WITH (topic = 'bank.cards', key = 'no', event_time = 'changed_ms');

INSERT INTO cards
SELECT no AS card, changed_ms AS changed, tier, country AS home, double(limit_usd) AS credit, opened
FROM card_master;
