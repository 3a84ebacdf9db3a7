#!/bin/sh
# Run by the image of PostgreSQL when its volume is new: a database and a role for Prefect, and others for the
# ledger. Neither role can reach what is the other's.
set -eu

# Passwords come from the environment: an argument could be read in the list of processes.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv prefect PREFECT_DATABASE_PASSWORD
\getenv ledger LEDGER_DATABASE_PASSWORD
CREATE ROLE prefect LOGIN PASSWORD :'prefect';
CREATE ROLE ledger LOGIN PASSWORD :'ledger';
CREATE DATABASE prefect OWNER prefect TEMPLATE template0 ENCODING 'UTF8';
CREATE DATABASE ledger OWNER ledger TEMPLATE template0 ENCODING 'UTF8';
REVOKE CONNECT, TEMPORARY ON DATABASE prefect, ledger FROM PUBLIC;
SQL
