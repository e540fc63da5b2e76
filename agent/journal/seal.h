/* seal: whether the journal that is there is the one that was left. SQLite drops what it cannot read of its write-ahead log, and a log that is gone or foreign, without a word: a database without its last outcomes looks whole.
 *
 * Two things tell. In the database the row of table `seal` counts the commits and holds a digest over the checksums of all rows, kept by triggers: rows that are missing, older than they were or of another log do not add up.
 * Beside it lies a mark, `<path>.mark`, with the count of the last commit that was on disk: written after each one and never waited for, so it may be behind (after a loss of power), which is nothing; a database that is
 * behind its mark has lost what was told to be durable. Both carry the id of the journal.
 *
 * A commit that was not on disk when the power failed is under no mark: its torn frames are dropped, as they should be. On the database's thread. */
#ifndef AGENT_JOURNAL_SEAL_H
#define AGENT_JOURNAL_SEAL_H

#include <sqlite3.h>

#include "base/bytes.h"
#include "base/status.h"

struct seal;

/* Reads the mark, before SQLite sees the files: where the mark tells of commits and the database is missing or empty, STATUS_LOCAL_DAMAGED with a sentence; a mark that cannot be read likewise. */
enum status seal_new(const char *path, struct seal **ret_seal, char **ret_why) MUST_USE;
void seal_free(struct seal *seal);

/* For struct database_options; arg is the seal. */
enum status seal_opened(sqlite3 *db, void *arg);
enum status seal_committing(sqlite3 *db, void *arg);
void seal_committed(void *arg);

/* `digest`: of the rows as they were read. Before this nothing is counted. STATUS_LOCAL_DAMAGED with a sentence without the path. */
enum status seal_check(struct seal *seal, sqlite3 *db, const uint8_t digest[32], char **ret_why) MUST_USE;
/* Takes a row's checksum into a digest, or out of it. */
void seal_mix(uint8_t digest[32], const uint8_t checksum[32]);

#endif
