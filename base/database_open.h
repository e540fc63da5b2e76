/* database_open: how base/database comes to an open connection: the files judged, the pragmas set, the content checked and brought to this program's version. Only database.c includes this. */
#ifndef BASE_DATABASE_OPEN_H
#define BASE_DATABASE_OPEN_H

#include "base/database.h"

/* *ret_db is the caller's to close, also after a failure. */
enum status database_open_sqlite(const struct database_options *options, sqlite3 **ret_db, char **ret_why) MUST_USE;

#endif
