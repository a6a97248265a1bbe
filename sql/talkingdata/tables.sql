-- Ad clicks, as in OpenMLDB's demo on TalkingData. is_attributed (an app was downloaded after the click) is the label:
-- known in history only, so a click that comes in has none.
CREATE DATABASE IF NOT EXISTS talkingdata;
USE talkingdata;
CREATE TABLE IF NOT EXISTS clicks(
    click_id string,
    ip int NOT NULL,
    app int NOT NULL,
    device int NOT NULL,
    os int NOT NULL,
    channel int NOT NULL,
    click_time timestamp NOT NULL,
    is_attributed int
);
