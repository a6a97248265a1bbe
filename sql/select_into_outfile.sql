-- Extracts the features of features.sql for every request of history, as a job of its own.
USE JD_db;
SET @@execute_mode='offline';
SET @@sync_job=true;
{features.sql}
INTO OUTFILE '/root/project/out/1' OPTIONS(format='parquet', mode='overwrite');
