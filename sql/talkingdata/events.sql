-- Clicks come in keyed by ip: the rows of an ip, and of ip and app, lie in one partition.
CREATE TABLE ad_clicks (
    click_id varchar(128),
    ip int NOT NULL,
    app int NOT NULL,
    device int NOT NULL,
    os int NOT NULL,
    channel int NOT NULL,
    click_time timestamp NOT NULL,
    CONSTRAINT ids_are_positive CHECK (ip >= 0 AND app >= 0 AND device >= 0 AND os >= 0 AND channel >= 0),
    CHECK (click_id != '')
) WITH (topic = 'ad-clicks', key = 'ip', event_time = 'click_time', request_id = 'click_id', format = 'json');

-- A click without a name of its own is named by ip, app and time.
INSERT INTO clicks
SELECT
    ifnull(click_id, concat(string(ip), '_', string(app), '_', string(bigint(click_time)))) AS click_id,
    ip,
    app,
    device,
    os,
    channel,
    click_time
FROM ad_clicks;
