-- What a payment is like, what the card did before, and what card it is.
SELECT * FROM
(
    SELECT
        payment_id,
        card,
        paid_at,
        amount,
        merchant,
        payments.country AS country,
        entry,
        instalments,
        hour(paid_at) AS paid_hour,
        dayofweek(paid_at) AS paid_weekday,
        count(amount) OVER w_1h AS payments_1h,
        sum(amount) OVER w_1h AS spent_1h,
        max(amount) OVER w_1d AS dearest_1d,
        distinct_count(merchant) OVER w_1d AS merchants_1d,
        distinct_count(payments.country) OVER w_1d AS countries_1d,
        avg(amount) OVER w_7d AS mean_7d,
        count(amount) OVER w_7d AS payments_7d,
        topn_frequency(merchant, 2) OVER w_7d AS merchants_top2_7d,
        lag(amount, 1) OVER w_last AS last_amount,
        count_where(amount, entry = 'web') OVER w_last AS web_of_last_10
    FROM payments
    WINDOW
        w_1h AS (PARTITION BY card ORDER BY paid_at ROWS_RANGE BETWEEN 1h PRECEDING AND CURRENT ROW),
        w_1d AS (PARTITION BY card ORDER BY paid_at ROWS_RANGE BETWEEN 1d PRECEDING AND CURRENT ROW),
        w_7d AS (PARTITION BY card ORDER BY paid_at ROWS_RANGE BETWEEN 7d PRECEDING AND CURRENT ROW),
        w_last AS (PARTITION BY card ORDER BY paid_at ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)
) AS of_payments
LAST JOIN
(
    SELECT
        payment_id AS login_payment_id,
        sum(failed) OVER w AS failed_logins_1d,
        distinct_count(device) OVER w AS devices_1d
    FROM (SELECT card, paid_at AS `at`, '' AS device, 0 AS failed, payment_id FROM payments)
    WINDOW w AS (
        UNION (SELECT card, `at`, device, failed, '' AS payment_id FROM logins)
        PARTITION BY card ORDER BY `at` ROWS_RANGE BETWEEN 1d PRECEDING AND CURRENT ROW INSTANCE_NOT_IN_WINDOW
    )
) AS of_logins ON of_payments.payment_id = of_logins.login_payment_id
LAST JOIN
(
    SELECT
        payment_id AS card_payment_id,
        cards.tier AS tier,
        cards.credit AS credit,
        payments.amount / cards.credit AS share_of_credit,
        cards.home = payments.country AS at_home,
        cards.opened AS opened
    FROM payments
    LAST JOIN cards ORDER BY cards.changed ON payments.card = cards.card AND cards.changed <= payments.paid_at
) AS of_cards ON of_payments.payment_id = of_cards.card_payment_id;
