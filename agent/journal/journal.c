#include "agent/journal/journal.h"

#include <stdio.h>
#include <string.h>

#include "agent/journal/internal.h"
#include "agent/journal/seal.h"
#include "base/clock.h"
#include "base/log.h"

#define PROBE_S 5
#define PROBE "probe"

/* Index -------------------------------------------------------------------------------------------------------------------------------- */

static struct node **find_slot(const struct journal *journal, const char *request_id)
{
	uint32_t hash = 2166136261u;
	for (const char *at = request_id; *at; at++)
		hash = (hash ^ (uint8_t)*at) * 16777619u;
	struct node **slot = (struct node **)&journal->buckets[hash % JOURNAL_BUCKETS];
	while (*slot && strcmp((*slot)->entry->request_id, request_id))
		slot = &(*slot)->next_in_bucket;
	return slot;
}

unsigned journal_refusals_limit(const struct journal *journal)
{
	return journal->settings.rows_limit / 4;
}

static bool is_refusal(const struct journal_entry *entry)
{
	return entry->state == JOURNAL_OUTCOME && !entry->counts && !entry->intent_at_ms;
}

static struct node *append_node(struct journal *journal, int64_t sequence, struct journal_entry *take_entry)
{
	struct node *node = calloc(1, sizeof *node);
	if (!node) {
		entry_free(take_entry);
		return NULL;
	}
	node->sequence = sequence;
	node->entry = take_entry;
	node->refusal = is_refusal(take_entry);
	journal->refusals += node->refusal;
	*find_slot(journal, take_entry->request_id) = node;
	node->before = journal->last;
	*(journal->last ? &journal->last->after : &journal->first) = node;
	journal->last = node;
	journal->rows++;
	return node;
}

static void free_node(struct node *node)
{
	entry_free(node->entry);
	entry_free(node->durable);
	free(node);
}

void journal_remove(struct journal *journal, struct node *node)
{
	struct node **slot = find_slot(journal, node->entry->request_id);
	*slot = node->next_in_bucket;
	*(node->before ? &node->before->after : &journal->first) = node->after;
	*(node->after ? &node->after->before : &journal->last) = node->before;
	journal->rows--;
	journal->refusals -= node->refusal;
	free_node(node);
}

const struct journal_entry *journal_find(const struct journal *journal, const char *request_id)
{
	const struct node *node = *find_slot(journal, request_id);
	return node ? node->entry : NULL;
}

void journal_each(const struct journal *journal, bool (*each)(const struct journal_entry *entry, void *arg), void *arg)
{
	for (const struct node *node = journal->first; node; node = node->after) {
		if (!each(node->entry, arg))
			return;
	}
}

unsigned journal_unacknowledged(const struct journal *journal)
{
	unsigned count = 0;
	for (const struct node *node = journal->first; node; node = node->after)
		count += node->entry->state == JOURNAL_OUTCOME && !node->entry->acknowledged;
	return count;
}

bool journal_writable(const struct journal *journal)
{
	return !journal->unwritable;
}

static void start_probe(struct journal *journal)
{
	static const struct timeval interval = { .tv_sec = PROBE_S };
	if (journal->probe && !event_pending(journal->probe, EV_TIMEOUT, NULL))
		event_add(journal->probe, &interval);
}

void journal_note_written(struct journal *journal, bool written)
{
	if (journal->unwritable == !written)
		return;
	journal->unwritable = !written;
	if (!written) {
		log_event(LOG_CRIT, "journal.unwritable", NULL, "the journal cannot be written: is the disk full, read-only or failing? Nothing is applied until it can be again, which is tried every %d s", PROBE_S);
		start_probe(journal);
	} else { /* the probe goes on once: a number may have failed that nobody else writes again */
		log_event(LOG_NOTICE, "journal.writable", NULL, "the journal can be written again");
	}
}

/* Entries ------------------------------------------------------------------------------------------------------------------------------ */

struct change {
	struct journal *journal;
	struct node *node;
	int64_t sequence;
	struct journal_entry *entry; /* the database's thread reads this one, never the node's */
	journal_done done;
	void *arg;
};

enum status journal_write_row(sqlite3 *db, struct journal *journal, int64_t sequence, const struct journal_entry *entry)
{
	if (!journal->write && sqlite3_prepare_v3(db, journal->write_sql, -1, SQLITE_PREPARE_PERSISTENT, &journal->write, NULL) != SQLITE_OK)
		return STATUS_AGENT_JOURNAL;
	return rows_write(journal->write, sequence, entry);
}

static enum status run_change(sqlite3 *db, void *arg)
{
	struct change *change = arg;
	return journal_write_row(db, change->journal, change->sequence, change->entry);
}

/* The index goes back to what is on disk, once nothing else is under way for the entry. */
static void end_change(struct journal *journal, struct node *node, struct journal_entry *take_written)
{
	node->pending--;
	if (take_written) {
		entry_free(node->durable);
		node->durable = take_written;
	}
	if (node->pending)
		return;
	node->entry->pending = false;
	if (take_written) {
		entry_free(node->durable);
		node->durable = NULL;
	} else if (node->durable) {
		entry_free(node->entry);
		node->entry = node->durable;
		node->durable = NULL;
	} else {
		journal_remove(journal, node);
	}
}

static void change_done(enum status status, void *arg)
{
	struct change *change = arg;
	journal_note_written(change->journal, status == STATUS_OK);
	if (status != STATUS_OK)
		entry_free(change->entry);
	end_change(change->journal, change->node, status == STATUS_OK ? change->entry : NULL);
	if (change->done)
		change->done(status, change->arg);
	free(change);
}

static struct change *new_change(struct journal *journal, const struct journal_entry *entry, journal_done done, void *arg)
{
	struct change *change = calloc(1, sizeof *change);
	if (!change)
		return NULL;
	*change = (struct change){ .journal = journal, .entry = entry_copy(entry), .done = done, .arg = arg };
	if (change->entry)
		return change;
	free(change);
	return NULL;
}

/* `take_entry` becomes the entry of `node`, or of a new node at the end. */
static struct node *apply_change(struct journal *journal, struct node *node, struct journal_entry *take_entry)
{
	if (!node) {
		node = append_node(journal, journal->next_sequence, take_entry);
		if (!node)
			return NULL;
		journal->next_sequence++;
	} else {
		if (node->pending)
			entry_free(node->entry);
		else
			node->durable = node->entry;
		node->entry = take_entry;
	}
	node->pending++;
	node->entry->pending = true;
	return node;
}

typedef enum status (*submit_function)(struct database *database, database_job job, database_done done, void *arg);

static enum status submit_change(struct journal *journal, struct node *node, const struct journal_entry *entry, submit_function submit, journal_done done, void *arg)
{
	struct journal_entry *copy = entry_copy(entry);
	struct change *change = new_change(journal, entry, done, arg);
	if (!copy || !change) {
		entry_free(copy);
		if (change)
			entry_free(change->entry);
		free(change);
		return STATUS_AGENT_INTERNAL;
	}
	change->entry->pending = false;
	change->sequence = node ? node->sequence : journal->next_sequence;
	change->node = apply_change(journal, node, copy);
	enum status status = change->node ? submit(journal->database, run_change, change_done, change) : STATUS_AGENT_INTERNAL;
	if (status == STATUS_OK)
		return STATUS_OK;
	if (change->node)
		end_change(journal, change->node, NULL);
	entry_free(change->entry);
	free(change);
	return status;
}

static enum status write_entry(struct journal *journal, const struct journal_entry *entry, journal_done done, void *arg)
{
	struct node *node = *find_slot(journal, entry->request_id);
	/* The first final outcome stands. */
	if (!uuid_valid(entry->request_id) || (node && node->entry->state == JOURNAL_OUTCOME))
		return STATUS_AGENT_INTERNAL;
	if (!node && journal->rows >= journal->settings.rows_limit)
		return STATUS_AGENT_JOURNAL;
	if (!node && is_refusal(entry) && journal->refusals >= journal_refusals_limit(journal))
		return STATUS_AGENT_OVERLOADED;
	return submit_change(journal, node, entry, database_submit, done, arg);
}

enum status journal_intent(struct journal *journal, const struct journal_entry *entry, journal_done done, void *arg)
{
	if (entry->state != JOURNAL_INTENT)
		return STATUS_AGENT_INTERNAL;
	return journal->unwritable ? STATUS_AGENT_JOURNAL : write_entry(journal, entry, done, arg);
}

enum status journal_outcome(struct journal *journal, const struct journal_entry *entry, journal_done done, void *arg)
{
	return entry->state == JOURNAL_INTENT ? STATUS_AGENT_INTERNAL : write_entry(journal, entry, done, arg);
}

void journal_acknowledge(struct journal *journal, const char *request_id)
{
	struct node *node = *find_slot(journal, request_id);
	if (!node || node->going || node->entry->state != JOURNAL_OUTCOME || node->entry->acknowledged)
		return;
	struct journal_entry acknowledged = *node->entry;
	acknowledged.acknowledged = true;
	/* Where it cannot be written, or is lost, the service is told once more and acknowledges once more. */
	if (submit_change(journal, node, &acknowledged, database_submit_patiently, NULL, NULL) != STATUS_OK)
		return;
}

/* Numbers ------------------------------------------------------------------------------------------------------------------------------ */

struct number_change {
	struct journal *journal;
	char name[NUMBER_NAME_SIZE];
	int64_t value;
	journal_done done;
	void *arg;
};

static struct number *find_number(const struct journal *journal, const char *name)
{
	for (unsigned i = 0; i < journal->number_count; i++) {
		if (!strcmp(journal->numbers[i].name, name))
			return (struct number *)&journal->numbers[i];
	}
	return NULL;
}

struct number *journal_put_number(struct journal *journal, const char *name, int64_t value)
{
	struct number *number = find_number(journal, name);
	if (!number && (journal->number_count == JOURNAL_NUMBERS || strlen(name) >= NUMBER_NAME_SIZE))
		return NULL;
	if (!number) {
		number = &journal->numbers[journal->number_count++];
		strcpy(number->name, name);
	}
	number->value = value;
	return number;
}

static enum status run_number(sqlite3 *db, void *arg)
{
	const struct number_change *change = arg;
	return rows_write_number(db, change->name, change->value);
}

static void number_done(enum status status, void *arg)
{
	struct number_change *change = arg;
	struct number *number = find_number(change->journal, change->name);
	journal_note_written(change->journal, status == STATUS_OK);
	if (number && status == STATUS_OK && number->value == change->value)
		number->dirty = false;
	if (change->done)
		change->done(status, change->arg);
	free(change);
}

static enum status submit_number(struct journal *journal, const struct number *number, journal_done done, void *arg)
{
	struct number_change *change = calloc(1, sizeof *change);
	if (change) {
		*change = (struct number_change){ .journal = journal, .value = number->value, .done = done, .arg = arg };
		strcpy(change->name, number->name);
	}
	enum status status = change ? database_submit(journal->database, run_number, number_done, change) : STATUS_AGENT_INTERNAL;
	if (status == STATUS_OK)
		return status;
	free(change);
	/* A full queue is no broken disk; the number waits for the probe. */
	if (status == STATUS_AGENT_OVERLOADED)
		start_probe(journal);
	else
		journal_note_written(journal, false);
	return status;
}

int64_t journal_number(const struct journal *journal, const char *name, int64_t initial)
{
	const struct number *number = find_number(journal, name);
	return number ? number->value : initial;
}

enum status journal_store_number(struct journal *journal, const char *name, int64_t value, journal_done done, void *arg)
{
	struct number *number = journal_put_number(journal, name, value);
	if (!number) {
		journal_note_written(journal, false);
		return STATUS_AGENT_INTERNAL;
	}
	number->dirty = true;
	return submit_number(journal, number, done, arg);
}

bool journal_has_number(const struct journal *journal, const char *name)
{
	const struct number *number = find_number(journal, name);
	return number && !number->dirty;
}

void journal_set_number(struct journal *journal, const char *name, int64_t value)
{
	if (journal_store_number(journal, name, value, NULL, NULL) != STATUS_OK)
		return; /* it waits for the probe */
}

/* Writes what is not on disk yet and, so that there is always something, the probe's own number. */
static void run_probe(evutil_socket_t fd, short what, void *arg)
{
	struct journal *journal = arg;
	if (!journal->unwritable)
		event_del(journal->probe);
	for (unsigned i = 0; i < journal->number_count; i++) {
		if (journal->numbers[i].dirty && submit_number(journal, &journal->numbers[i], NULL, NULL) != STATUS_OK)
			break;
	}
	if (journal->unwritable)
		journal_set_number(journal, PROBE, clock_now_ms());
}

/* Opening ------------------------------------------------------------------------------------------------------------------------------ */

struct loading { struct journal *journal; char *why; };

static enum status load_entry(int64_t sequence, struct journal_entry *take_entry, void *arg)
{
	struct journal *journal = arg;
	if (!append_node(journal, sequence, take_entry))
		return STATUS_AGENT_INTERNAL;
	journal->next_sequence = sequence + 1;
	return STATUS_OK;
}

static enum status load_number(const char *name, int64_t value, void *arg)
{
	return journal_put_number(arg, name, value) ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

/* The last step writes: a journal that can only be read is none. */
static enum status run_loading(sqlite3 *db, void *arg)
{
	struct loading *loading = arg;
	uint8_t digest[32] = { 0 };
	enum status status = rows_read(db, load_entry, loading->journal, digest, &loading->why);
	if (status == STATUS_OK)
		status = rows_read_numbers(db, load_number, loading->journal, digest, &loading->why);
	if (status == STATUS_OK)
		status = seal_check(loading->journal->seal, db, digest, &loading->why);
	return status == STATUS_OK ? rows_write_number(db, PROBE, clock_now_ms()) : status;
}

static enum status load(struct journal *journal, char **ret_why)
{
	struct loading loading = { .journal = journal };
	enum status status = database_run(journal->database, run_loading, &loading);
	if (status != STATUS_OK)
		database_leave_untouched(journal->database);
	if (status != STATUS_OK && ret_why && asprintf(ret_why, "%s: %s", journal->settings.path, loading.why ? loading.why : "cannot be written, or memory is out") < 0)
		*ret_why = NULL;
	free(loading.why);
	return status;
}

enum status journal_open(struct event_base *base, const struct journal_settings *settings, struct journal **ret_journal, char **ret_why)
{
	struct database_options options = { .path = settings->path, .application_id = JOURNAL_APPLICATION_ID, .user_version = JOURNAL_VERSION,
		.migrations = rows_migrations, .opened = seal_opened, .committing = seal_committing, .committed = seal_committed };
	*ret_journal = NULL;
	if (ret_why)
		*ret_why = NULL;
	struct journal *journal = calloc(1, sizeof *journal);
	if (!journal)
		return STATUS_AGENT_INTERNAL;
	journal->settings = *settings;
	journal->next_sequence = 1;
	journal->write_sql = rows_write_sql();
	journal->probe = base ? event_new(base, -1, EV_PERSIST, run_probe, journal) : NULL;
	enum status status = !journal->write_sql || (base && !journal->probe) ? STATUS_AGENT_INTERNAL : seal_new(settings->path, &journal->seal, ret_why);
	options.hook_arg = journal->seal;
	if (status == STATUS_OK)
		status = database_open(base, &options, &journal->database, ret_why);
	if (status == STATUS_OK)
		status = load(journal, ret_why);
	journal->settings.path = NULL;
	if (status != STATUS_OK) {
		journal_close(journal);
		return status;
	}
	*ret_journal = journal;
	return STATUS_OK;
}

void journal_close(struct journal *journal)
{
	if (!journal)
		return;
	/* Runs the callbacks that are left, which may still look into the index. */
	database_close(journal->database);
	sqlite3_finalize(journal->write);
	seal_free(journal->seal);
	if (journal->probe)
		event_free(journal->probe);
	for (struct node *node = journal->first, *after; node; node = after) {
		after = node->after;
		free_node(node);
	}
	free(journal->write_sql);
	free(journal);
}
