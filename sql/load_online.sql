-- Loads history into the online tables, after deploy.sql.
USE JD_db;
SET @@execute_mode='online';
SET @@sync_job=true;
LOAD DATA INFILE '/root/project/data/JD_data/action/*.parquet' INTO TABLE action OPTIONS(format='parquet', header=true, mode='append');
LOAD DATA INFILE '/root/project/data/JD_data/flattenRequest_clean/*.parquet' INTO TABLE flattenRequest OPTIONS(format='parquet', header=true, mode='append');
LOAD DATA INFILE '/root/project/data/JD_data/bo_user/*.parquet' INTO TABLE bo_user OPTIONS(format='parquet', header=true, mode='append');
LOAD DATA INFILE '/root/project/data/JD_data/bo_action/*.parquet' INTO TABLE bo_action OPTIONS(format='parquet', header=true, mode='append');
LOAD DATA INFILE '/root/project/data/JD_data/bo_product/*.parquet' INTO TABLE bo_product OPTIONS(format='parquet', header=true, mode='append');
LOAD DATA INFILE '/root/project/data/JD_data/bo_comment/*.parquet' INTO TABLE bo_comment OPTIONS(format='parquet', header=true, mode='append');
