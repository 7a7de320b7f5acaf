-- What 0014 narrows on PostgreSQL is not there on SQLite.
SELECT 1;
