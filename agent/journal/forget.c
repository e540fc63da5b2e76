/* What goes: rows that nobody needs any more, and those of an agent that is another one now. */
#include "agent/journal/internal.h"

#include <string.h>

#define FORGET_AT_ONCE 1024
#define FORGOTTEN_EXP "forgotten_exp"

/* Forgetting --------------------------------------------------------------------------------------------------------------------------- */

struct forgetting {
	struct journal *journal;
	int64_t now_ms;
	int64_t exp;                 /* the highest one */
	size_t count;
	struct node *nodes[FORGET_AT_ONCE];
	int64_t sequences[FORGET_AT_ONCE];
};

static enum status run_forgetting(sqlite3 *db, void *arg)
{
	const struct forgetting *forgetting = arg;
	sqlite3_stmt *statement = NULL;
	bool good = sqlite3_prepare_v2(db, "DELETE FROM entries WHERE sequence = ?", -1, &statement, NULL) == SQLITE_OK;
	for (size_t i = 0; good && i < forgetting->count; i++) {
		good = sqlite3_bind_int64(statement, 1, forgetting->sequences[i]) == SQLITE_OK && sqlite3_step(statement) == SQLITE_DONE;
		sqlite3_reset(statement);
	}
	sqlite3_finalize(statement);
	return good ? rows_write_number(db, FORGOTTEN_EXP, forgetting->exp) : STATUS_AGENT_JOURNAL;
}

static void forgetting_done(enum status status, void *arg)
{
	struct forgetting *forgetting = arg;
	struct journal *journal = forgetting->journal;
	journal_note_written(journal, status == STATUS_OK);
	for (size_t i = 0; i < forgetting->count; i++) {
		forgetting->nodes[i]->pending--;
		forgetting->nodes[i]->going = false;
		if (status == STATUS_OK)
			journal_remove(journal, forgetting->nodes[i]);
	}
	/* A batch that was full may have left some. */
	if (status == STATUS_OK && forgetting->count == FORGET_AT_ONCE)
		journal_forget(journal, forgetting->now_ms);
	free(forgetting);
}

static bool can_forget(const struct journal *journal, const struct node *node, int64_t now_ms)
{
	const struct journal_entry *entry = node->entry;
	/* What the throttles count goes last: an agent that starts anew would let somebody guess on. */
	unsigned quarters = entry->counts || entry->wrong_at_ms ? 3 : 2;
	bool full = journal->rows > journal->settings.rows_limit * quarters / 4 || (node->refusal && journal->refusals > journal_refusals_limit(journal) * quarters / 4);
	/* A flood of requests that change nothing must not fill the journal, acknowledged or not: a service that asks once more hears that they have expired, which is as true. */
	bool old = entry->outcome_at_ms <= now_ms - journal->settings.retain_ms;
	return !node->pending && entry->state == JOURNAL_OUTCOME && entry->exp < now_ms / 1000 && (entry->acknowledged || !entry->counts) && (old || full);
}

static void collect(struct journal *journal, int64_t now_ms, struct forgetting *forgetting)
{
	for (struct node *node = journal->first; node && forgetting->count < FORGET_AT_ONCE; node = node->after) {
		if (!can_forget(journal, node, now_ms))
			continue;
		node->pending++;
		node->going = true;
		forgetting->nodes[forgetting->count] = node;
		forgetting->sequences[forgetting->count++] = node->sequence;
		if (node->entry->exp > forgetting->exp)
			forgetting->exp = node->entry->exp;
	}
}

void journal_forget(struct journal *journal, int64_t now_ms)
{
	struct forgetting *forgetting = calloc(1, sizeof *forgetting);
	if (!forgetting)
		return;
	forgetting->journal = journal;
	forgetting->now_ms = now_ms;
	forgetting->exp = journal_forgotten_exp(journal);
	collect(journal, now_ms, forgetting);
	/* At once, so that no request at or below it comes in while the rows go. */
	struct number *number = forgetting->count ? journal_put_number(journal, FORGOTTEN_EXP, forgetting->exp) : NULL;
	if (number && database_submit(journal->database, run_forgetting, forgetting_done, forgetting) == STATUS_OK)
		return;
	for (size_t i = 0; i < forgetting->count; i++) {
		forgetting->nodes[i]->pending--;
		forgetting->nodes[i]->going = false;
	}
	free(forgetting);
}

/* Abandoning: one job for all, so that the queue's limit leaves none behind. What counts is acknowledged, the rest goes. */
struct abandoned {
	struct node *node;
	int64_t sequence;
	struct journal_entry *acknowledged; /* NULL: it goes */
};
struct abandoning {
	struct journal *journal;
	size_t count;
	struct abandoned rows[];
};

static void abandoning_free(struct abandoning *abandoning)
{
	for (size_t i = 0; i < abandoning->count; i++)
		entry_free(abandoning->rows[i].acknowledged);
	free(abandoning);
}

static enum status run_abandoning(sqlite3 *db, void *arg)
{
	const struct abandoning *abandoning = arg;
	sqlite3_stmt *statement = NULL;
	bool good = sqlite3_prepare_v2(db, "DELETE FROM entries WHERE sequence = ?", -1, &statement, NULL) == SQLITE_OK;
	for (size_t i = 0; good && i < abandoning->count; i++) {
		const struct abandoned *row = &abandoning->rows[i];
		if (row->acknowledged) {
			good = journal_write_row(db, abandoning->journal, row->sequence, row->acknowledged) == STATUS_OK;
			continue;
		}
		good = sqlite3_bind_int64(statement, 1, row->sequence) == SQLITE_OK && sqlite3_step(statement) == SQLITE_DONE;
		sqlite3_reset(statement);
	}
	sqlite3_finalize(statement);
	return good ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

static void abandoning_done(enum status status, void *arg)
{
	struct abandoning *abandoning = arg;
	struct journal *journal = abandoning->journal;
	journal_note_written(journal, status == STATUS_OK);
	for (size_t i = 0; i < abandoning->count; i++) {
		struct node *node = abandoning->rows[i].node;
		node->pending--;
		node->going = false;
		if (status == STATUS_OK && abandoning->rows[i].acknowledged)
			node->entry->acknowledged = true;
		else if (status == STATUS_OK)
			journal_remove(journal, node);
	}
	abandoning_free(abandoning);
}

void journal_abandon(struct journal *journal)
{
	struct abandoning *abandoning = calloc(1, sizeof *abandoning + journal->rows * sizeof abandoning->rows[0]);
	if (!abandoning)
		return;
	abandoning->journal = journal;
	for (struct node *node = journal->first; node; node = node->after) {
		if (node->pending || node->entry->state != JOURNAL_OUTCOME || node->entry->acknowledged)
			continue;
		struct abandoned *row = &abandoning->rows[abandoning->count];
		*row = (struct abandoned){ .node = node, .sequence = node->sequence, .acknowledged = node->entry->counts ? entry_copy(node->entry) : NULL };
		if (node->entry->counts && !row->acknowledged)
			break;
		if (row->acknowledged)
			row->acknowledged->acknowledged = true;
		node->pending++;
		node->going = true;
		abandoning->count++;
	}
	if (abandoning->count && database_submit(journal->database, run_abandoning, abandoning_done, abandoning) == STATUS_OK)
		return;
	for (size_t i = 0; i < abandoning->count; i++) {
		abandoning->rows[i].node->pending--;
		abandoning->rows[i].node->going = false;
	}
	abandoning_free(abandoning);
}

int64_t journal_forgotten_exp(const struct journal *journal)
{
	return journal_number(journal, FORGOTTEN_EXP, 0);
}
