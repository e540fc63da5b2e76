/* internal: what journal.c and forget.c share. Nobody else includes it. */
#ifndef AGENT_JOURNAL_INTERNAL_H
#define AGENT_JOURNAL_INTERNAL_H

#include "agent/journal/journal.h"
#include "agent/journal/rows.h"
#include "base/database.h"

enum { JOURNAL_BUCKETS = 1 << 14, JOURNAL_NUMBERS = 16 };

/* A request in the index. While changes are under way, `entry` is what they will make of it and `durable` what is on disk (NULL: nothing). */
struct node {
	struct node *next_in_bucket, *before, *after;
	int64_t sequence;
	struct journal_entry *entry, *durable;
	unsigned pending;
	bool refusal;                /* it began with an outcome, and nothing was written */
	bool going;                  /* its row is being deleted */
};

struct number {
	char name[NUMBER_NAME_SIZE];
	int64_t value;
	bool dirty;                  /* not on disk yet */
};

struct journal {
	struct database *database;
	struct seal *seal;
	sqlite3_stmt *write;         /* made and used on the database's thread */
	char *write_sql;
	struct event *probe;
	struct node *buckets[JOURNAL_BUCKETS];
	struct node *first, *last;   /* in order of arrival */
	unsigned rows, refusals;
	int64_t next_sequence;
	struct journal_settings settings;
	bool unwritable;
	struct number numbers[JOURNAL_NUMBERS];
	unsigned number_count;
};

/* Of all rows' limit, the part that refusals may take: the rest is for those that change something. */
unsigned journal_refusals_limit(const struct journal *journal);
void journal_remove(struct journal *journal, struct node *node);
/* Every job ends here: the first failure stops writes of passwords, the first success lets them go on. */
void journal_note_written(struct journal *journal, bool written);
/* On the database's thread. */
enum status journal_write_row(sqlite3 *db, struct journal *journal, int64_t sequence, const struct journal_entry *entry) MUST_USE;
/* NULL where there is no room: the names are few and this program's own. */
struct number *journal_put_number(struct journal *journal, const char *name, int64_t value);

#endif
