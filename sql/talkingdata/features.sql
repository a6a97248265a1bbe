-- The features of OpenMLDB's TalkingData demo: the click itself, its hour and day, and how often the like came before,
-- the click itself counted.
SELECT
    click_id,
    is_attributed,
    app,
    device,
    os,
    channel,
    hour(click_time) AS click_hour,
    dayofmonth(click_time) AS click_day,
    count(channel) OVER w_ip_1h AS ip_clicks_1h,
    count(channel) OVER w_ip_app AS ip_app_clicks,
    count(channel) OVER w_ip_app_os AS ip_app_os_clicks
FROM clicks
WINDOW
    w_ip_1h AS (PARTITION BY ip ORDER BY click_time ROWS_RANGE BETWEEN 1h PRECEDING AND CURRENT ROW),
    w_ip_app AS (PARTITION BY ip, app ORDER BY click_time ROWS_RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
    w_ip_app_os AS (PARTITION BY ip, app, os ORDER BY click_time ROWS_RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
