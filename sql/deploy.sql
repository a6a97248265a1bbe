-- Deploys the feature query of features.sql for online requests.
-- Deploy before loading: on a filled cluster the new indexes may miss rows that came in the last two seconds.
-- The biases keep rows for ever: without them rows older than a window's length (all of the tutorial's data) expire.
USE JD_db;
SET @@execute_mode='online';
DEPLOY demo OPTIONS(RANGE_BIAS='inf', ROWS_BIAS='inf') {features.sql};
