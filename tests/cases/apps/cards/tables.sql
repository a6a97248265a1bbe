-- A bank's cards. Money is in dollars, times are the bank's own.
CREATE DATABASE IF NOT EXISTS bank;
USE bank;
CREATE TABLE payments (
    payment_id string NOT NULL,
    card bigint NOT NULL,
    paid_at timestamp NOT NULL,
    amount double NOT NULL,
    merchant string NOT NULL,
    country string NOT NULL,
    entry string NOT NULL,
    instalments int NOT NULL
);
CREATE TABLE logins (
    card bigint NOT NULL,
    `at` timestamp NOT NULL,
    device string,
    failed int NOT NULL
);
CREATE TABLE chargebacks (
    card bigint NOT NULL,
    filed_at timestamp NOT NULL,
    amount double NOT NULL
);
CREATE TABLE cards (
    card bigint NOT NULL,
    changed timestamp NOT NULL,
    tier string NOT NULL,
    home string,
    credit double,
    opened date
);
