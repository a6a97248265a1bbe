-- What comes in on Kafka, and the rows that become of it. A text without a length has 256 characters at most.

CREATE TABLE actions (
    user_id varchar(128) NOT NULL,
    sku_id varchar(128) NOT NULL,
    time timestamp NOT NULL,
    type string NOT NULL,        -- 1 view, 2 add to cart, 3 remove from cart, 4 order, 5 follow, 6 click
    model_id string NOT NULL,
    cate string NOT NULL,
    br string NOT NULL,
    request_id varchar(128),
    CHECK (user_id != ''),
    CHECK (sku_id != ''),
    CHECK (request_id != ''),
    CHECK (type IN ('1', '2', '3', '4', '5', '6'))
) WITH (topic = 'user-actions', key = 'user_id', event_time = 'time', request_id = 'request_id', format = 'json');

INSERT INTO bo_action
SELECT
    time AS ingestionTime,
    concat(user_id, '_', sku_id) AS pair_id,
    bigint(time) AS time,
    model_id,
    type,
    cate,
    br
FROM actions;

-- The request: asked first, inserted after. Without a name of its own it is named as in the tutorial's data.
INSERT INTO flattenRequest
SELECT
    ifnull(request_id, concat(user_id, '_', sku_id, '_', string(time))) AS reqId,
    time AS eventTime,
    '' AS main_id,
    concat(user_id, '_', sku_id) AS pair_id,
    user_id,
    sku_id,
    bigint(time) AS time,
    0 AS split_id,
    string(time) AS time1
FROM actions;

CREATE TABLE users (
    user_id varchar(128) NOT NULL,
    ingestionTime timestamp NOT NULL,
    age string NOT NULL,
    sex string NOT NULL,
    user_lv_cd string NOT NULL,
    user_reg_tm bigint NOT NULL,
    CHECK (user_id != '')
) WITH (topic = 'users', key = 'user_id', event_time = 'ingestionTime');

INSERT INTO bo_user SELECT ingestionTime, user_id, age, sex, user_lv_cd, user_reg_tm FROM users;

CREATE TABLE products (
    sku_id varchar(128) NOT NULL,
    ingestionTime timestamp NOT NULL,
    a1 string NOT NULL,
    a2 string NOT NULL,
    a3 string NOT NULL,
    cate string NOT NULL,
    br string NOT NULL,
    CHECK (sku_id != '')
) WITH (topic = 'products', key = 'sku_id', event_time = 'ingestionTime');

INSERT INTO bo_product SELECT ingestionTime, sku_id, a1, a2, a3, cate, br FROM products;

-- The comments of one product up to dt.
CREATE TABLE comments (
    sku_id varchar(128) NOT NULL,
    ingestionTime timestamp NOT NULL,
    dt bigint NOT NULL,
    comment_num int NOT NULL,
    has_bad_comment string NOT NULL,
    bad_comment_rate double NOT NULL,
    CHECK (sku_id != ''),
    CHECK (bad_comment_rate BETWEEN 0 AND 1)
) WITH (topic = 'comments', key = 'sku_id', event_time = 'ingestionTime');

INSERT INTO bo_comment
SELECT ingestionTime, dt, sku_id, comment_num, has_bad_comment, float(bad_comment_rate) AS bad_comment_rate
FROM comments;
