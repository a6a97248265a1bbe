DEPLOY demo OPTIONS(RANGE_BIAS = 'inf', ROWS_BIAS = 'inf')
SELECT
  *
FROM
  (
    SELECT
      reqId AS reqId_1,
      eventTime AS flattenRequest_eventTime_original_0,
      reqId AS flattenRequest_reqId_original_1,
      pair_id AS flattenRequest_pair_id_original_24,
      sku_id AS flattenRequest_sku_id_original_25,
      user_id AS flattenRequest_user_id_original_26,
      distinct_count(pair_id) OVER (flattenRequest_user_id_eventTime_0_10_) AS flattenRequest_pair_id_window_unique_count_27,
      top1_ratio(pair_id) OVER (flattenRequest_user_id_eventTime_0_10_) AS flattenRequest_pair_id_window_top1_ratio_28,
      top1_ratio(pair_id) OVER (flattenRequest_user_id_eventTime_0s_14d_200) AS flattenRequest_pair_id_window_top1_ratio_29,
      distinct_count(pair_id) OVER (flattenRequest_user_id_eventTime_0s_14d_200) AS flattenRequest_pair_id_window_unique_count_32,
      CASE
        WHEN NOT isnull(`at`(pair_id, 0)) OVER (flattenRequest_user_id_eventTime_0_10_) THEN count_where(pair_id,
          pair_id = `at`(pair_id, 0)) OVER (flattenRequest_user_id_eventTime_0_10_)
        ELSE null
      END AS flattenRequest_pair_id_window_count_35,
      dayofweek(timestamp(eventTime)) AS flattenRequest_eventTime_dayofweek_41,
      CASE
        WHEN 1 < dayofweek(timestamp(eventTime)) AND dayofweek(timestamp(eventTime)) < 7 THEN 1
        ELSE 0
      END AS flattenRequest_eventTime_isweekday_43
    FROM
      flattenRequest
    WINDOW flattenRequest_user_id_eventTime_0_10_ AS (PARTITION BY user_id
      ORDER BY eventTime ROWS BETWEEN 10 PRECEDING AND 0 PRECEDING), flattenRequest_user_id_eventTime_0s_14d_200 AS (PARTITION BY user_id
      ORDER BY eventTime ROWS_RANGE BETWEEN 14d PRECEDING AND 0s PRECEDING MAXSIZE 200)
  ) AS out0
  LAST JOIN
  (
    SELECT
      flattenRequest.reqId AS reqId_3,
      action_reqId.actionValue AS action_actionValue_multi_direct_2,
      bo_product_sku_id.a1 AS bo_product_a1_multi_direct_3,
      bo_product_sku_id.a2 AS bo_product_a2_multi_direct_4,
      bo_product_sku_id.a3 AS bo_product_a3_multi_direct_5,
      bo_product_sku_id.br AS bo_product_br_multi_direct_6,
      bo_product_sku_id.cate AS bo_product_cate_multi_direct_7,
      bo_product_sku_id.ingestionTime AS bo_product_ingestionTime_multi_direct_8,
      bo_user_user_id.age AS bo_user_age_multi_direct_9,
      bo_user_user_id.ingestionTime AS bo_user_ingestionTime_multi_direct_10,
      bo_user_user_id.sex AS bo_user_sex_multi_direct_11,
      bo_user_user_id.user_lv_cd AS bo_user_user_lv_cd_multi_direct_12
    FROM
      flattenRequest
      LAST JOIN
      action AS action_reqId
      ON flattenRequest.reqId = action_reqId.reqId
      LAST JOIN
      bo_product AS bo_product_sku_id
      ON flattenRequest.sku_id = bo_product_sku_id.sku_id
      LAST JOIN
      bo_user AS bo_user_user_id
      ON flattenRequest.user_id = bo_user_user_id.user_id
  ) AS out1
  ON out0.reqId_1 = out1.reqId_3
  LAST JOIN
  (
    SELECT
      reqId AS reqId_14,
      max(bad_comment_rate) OVER (bo_comment_sku_id_ingestionTime_0s_64d_100) AS bo_comment_bad_comment_rate_multi_max_13,
      min(bad_comment_rate) OVER (bo_comment_sku_id_ingestionTime_0_10_) AS bo_comment_bad_comment_rate_multi_min_14,
      min(bad_comment_rate) OVER (bo_comment_sku_id_ingestionTime_0s_64d_100) AS bo_comment_bad_comment_rate_multi_min_15,
      distinct_count(comment_num) OVER (bo_comment_sku_id_ingestionTime_0s_64d_100) AS bo_comment_comment_num_multi_unique_count_22,
      distinct_count(has_bad_comment) OVER (bo_comment_sku_id_ingestionTime_0s_64d_100) AS bo_comment_has_bad_comment_multi_unique_count_23,
      topn_frequency(has_bad_comment, 3) OVER (bo_comment_sku_id_ingestionTime_0s_64d_100) AS bo_comment_has_bad_comment_multi_top3frequency_30,
      topn_frequency(comment_num, 3) OVER (bo_comment_sku_id_ingestionTime_0s_64d_100) AS bo_comment_comment_num_multi_top3frequency_33
    FROM
      (
        SELECT
          eventTime AS ingestionTime,
          bigint(0) AS dt,
          sku_id AS sku_id,
          int(0) AS comment_num,
          '' AS has_bad_comment,
          float(0) AS bad_comment_rate,
          reqId
        FROM
          flattenRequest
      )
    WINDOW bo_comment_sku_id_ingestionTime_0s_64d_100 AS (UNION
      (
        SELECT
          ingestionTime,
          dt,
          sku_id,
          comment_num,
          has_bad_comment,
          bad_comment_rate,
          '' AS reqId
        FROM
          bo_comment
      ) PARTITION BY sku_id
      ORDER BY ingestionTime ROWS_RANGE BETWEEN 64d PRECEDING AND 0s PRECEDING MAXSIZE 100 INSTANCE_NOT_IN_WINDOW),
      bo_comment_sku_id_ingestionTime_0_10_ AS (UNION
      (
        SELECT
          ingestionTime,
          dt,
          sku_id,
          comment_num,
          has_bad_comment,
          bad_comment_rate,
          '' AS reqId
        FROM
          bo_comment
      ) PARTITION BY sku_id
      ORDER BY ingestionTime ROWS BETWEEN 10 PRECEDING AND 0 PRECEDING INSTANCE_NOT_IN_WINDOW)
  ) AS out2
  ON out0.reqId_1 = out2.reqId_14
  LAST JOIN
  (
    SELECT
      reqId AS reqId_17,
      topn_frequency(br, 3) OVER (bo_action_pair_id_ingestionTime_0s_10h_100) AS bo_action_br_multi_top3frequency_16,
      topn_frequency(cate, 3) OVER (bo_action_pair_id_ingestionTime_0s_10h_100) AS bo_action_cate_multi_top3frequency_17,
      topn_frequency(model_id, 3) OVER (bo_action_pair_id_ingestionTime_0s_7d_100) AS bo_action_model_id_multi_top3frequency_18,
      distinct_count(model_id) OVER (bo_action_pair_id_ingestionTime_0s_14d_100) AS bo_action_model_id_multi_unique_count_19,
      distinct_count(model_id) OVER (bo_action_pair_id_ingestionTime_0s_7d_100) AS bo_action_model_id_multi_unique_count_20,
      distinct_count(type) OVER (bo_action_pair_id_ingestionTime_0s_14d_100) AS bo_action_type_multi_unique_count_21,
      topn_frequency(type, 3) OVER (bo_action_pair_id_ingestionTime_0s_7d_100) AS bo_action_type_multi_top3frequency_40,
      topn_frequency(type, 3) OVER (bo_action_pair_id_ingestionTime_0s_14d_100) AS bo_action_type_multi_top3frequency_42
    FROM
      (
        SELECT
          eventTime AS ingestionTime,
          pair_id AS pair_id,
          bigint(0) AS time,
          '' AS model_id,
          '' AS type,
          '' AS cate,
          '' AS br,
          reqId
        FROM
          flattenRequest
      )
    WINDOW bo_action_pair_id_ingestionTime_0s_10h_100 AS (UNION
      (
        SELECT
          ingestionTime,
          pair_id,
          time,
          model_id,
          type,
          cate,
          br,
          '' AS reqId
        FROM
          bo_action
      ) PARTITION BY pair_id
      ORDER BY ingestionTime ROWS_RANGE BETWEEN 10h PRECEDING AND 0s PRECEDING MAXSIZE 100 INSTANCE_NOT_IN_WINDOW),
      bo_action_pair_id_ingestionTime_0s_7d_100 AS (UNION
      (
        SELECT
          ingestionTime,
          pair_id,
          time,
          model_id,
          type,
          cate,
          br,
          '' AS reqId
        FROM
          bo_action
      ) PARTITION BY pair_id
      ORDER BY ingestionTime ROWS_RANGE BETWEEN 7d PRECEDING AND 0s PRECEDING MAXSIZE 100 INSTANCE_NOT_IN_WINDOW),
      bo_action_pair_id_ingestionTime_0s_14d_100 AS (UNION
      (
        SELECT
          ingestionTime,
          pair_id,
          time,
          model_id,
          type,
          cate,
          br,
          '' AS reqId
        FROM
          bo_action
      ) PARTITION BY pair_id
      ORDER BY ingestionTime ROWS_RANGE BETWEEN 14d PRECEDING AND 0s PRECEDING MAXSIZE 100 INSTANCE_NOT_IN_WINDOW)
  ) AS out3
  ON out0.reqId_1 = out3.reqId_17
