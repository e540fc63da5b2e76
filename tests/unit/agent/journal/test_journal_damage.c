/* A journal as a killed agent leaves it (database, write-ahead log, mark), damaged in every way that can be listed, and opened: it is whole, or healed (what was never told to be on disk is gone), or refused in a
 * sentence. Never other rows than were written, never fewer without a word, never a crash or a hang.
 *
 *   test_journal_damage          prefixes of each file: every end of a page or a frame and its neighbours, and one in STRIDE between them; single bits flipped at random
 *   test_journal_damage --all    every prefix and every bit of each file: a quarter of an hour
 * SEED=n repeats a run; SLOWNESS=10, which valgrind sets, tries every tenth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <sqlite3.h>

#include "agent/journal/journal.h"

#define NOW INT64_C(1790000000)
enum { DATABASE, LOG, MARK, FILES, STATES_MAX = 16, SIZE_MAX_OF_FILE = 1 << 17, HANG_S = 60, SAMPLED_FLIPS = 300, STRIDE = 41,
	PAGE = 512, FRAME = PAGE + 24, LOG_HEADER = 32 };

static const char *const suffixes[FILES] = { "", "-wal", ".mark" };
static char folder[64], path[96];
static bool all;
static unsigned seed, slowness;

/* One moment of the files, and what they hold. */
struct files { uint8_t data[FILES][SIZE_MAX_OF_FILE]; size_t size[FILES]; bool there[FILES]; };
static struct files *last, *work;
static struct files *before[STATES_MAX];
static char *states[STATES_MAX];
static unsigned state_count;

static void name_of(int which, char out[128])
{
	snprintf(out, 128, "%s%s", path, suffixes[which]);
}

static void read_files(struct files *files)
{
	for (int i = 0; i < FILES; i++) {
		char name[128];
		name_of(i, name);
		FILE *file = fopen(name, "r");
		files->there[i] = file != NULL;
		files->size[i] = file ? fread(files->data[i], 1, SIZE_MAX_OF_FILE, file) : 0;
		assert_true(files->size[i] < SIZE_MAX_OF_FILE);
		if (file)
			fclose(file);
	}
}

static void write_files(const struct files *files)
{
	char name[128];
	snprintf(name, sizeof name, "%s-shm", path);
	unlink(name);
	for (int i = 0; i < FILES; i++) {
		name_of(i, name);
		unlink(name);
		if (!files->there[i])
			continue;
		FILE *file = fopen(name, "w");
		assert_non_null(file);
		assert_int_equal(fwrite(files->data[i], 1, files->size[i], file), files->size[i]);
		fclose(file);
	}
}

/* What it holds, in words: two of the same are the same. */
static bool describe_entry(const struct journal_entry *entry, void *arg)
{
	FILE *out = arg;
	fprintf(out, "%s %s %d %s %s %lld %s %s\n", entry->request_id, entry->op, (int)entry->state, entry->server, entry->code, (long long)entry->exp, entry->result ? entry->result : "-",
	        entry->acknowledged ? "acknowledged" : "");
	return true;
}

static char *describe(const struct journal *journal)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	journal_each(journal, describe_entry, out);
	fprintf(out, "boot %lld latched %lld forgotten %lld\n", (long long)journal_number(journal, "boot", 0), (long long)journal_number(journal, "latched", 0), (long long)journal_forgotten_exp(journal));
	fclose(out);
	return text;
}

/* Making it ---------------------------------------------------------------------------------------------------------------------------- */

static struct event_base *base;
static struct journal *journal;
static unsigned answers;

static void answered(enum status status, void *arg)
{
	assert_int_equal(status, STATUS_OK);
	answers++;
}

static void open_journal(void)
{
	struct journal_settings settings = { .path = path, .retain_ms = 3600000, .rows_limit = 100 };
	char *why = NULL;
	if (journal_open(base, &settings, &journal, &why) != STATUS_OK)
		fail_msg("%s", why);
}

/* Waits for the commit, which moves the mark, and takes a snapshot. */
static void snapshot(void)
{
	static struct files now, former;
	for (unsigned i = 0; i < 100000; i++) {
		event_base_loop(base, EVLOOP_NONBLOCK);
		read_files(&now);
		if (now.size[MARK] && memcmp(now.data[MARK], former.data[MARK], now.size[MARK]) != 0)
			break;
		usleep(100);
	}
	former = now;
	read_files(&now);
	states[state_count] = describe(journal);
	before[state_count] = calloc(1, sizeof now);
	*before[state_count++] = now;
	assert_true(state_count < STATES_MAX);
}

static void set_number(const char *name, int64_t value)
{
	journal_set_number(journal, name, value);
	snapshot();
}

static void write_entry(unsigned n, bool outcome)
{
	struct journal_entry entry = { .exp = NOW + n, .state = outcome ? JOURNAL_OUTCOME : JOURNAL_INTENT, .op = "reset", .directory = "corp", .server = "dc1", .highest_committed_usn = 7, .intent_at_ms = NOW * 1000 };
	snprintf(entry.request_id, UUID_SIZE, "6f9619ff-8b86-4d01-b42d-%012x", n);
	strcpy(entry.operation_id, entry.request_id);
	strcpy(entry.user_guid, entry.request_id);
	if (outcome) {
		entry.outcome_at_ms = NOW * 1000;
		strcpy(entry.code, "ok");
		entry.counts = entry.sets_password = true;
		entry.result = (char *)(uintptr_t)"{\"code\":\"ok\"}";
	}
	unsigned target = answers + 1;
	assert_int_equal((outcome ? journal_outcome : journal_intent)(journal, &entry, answered, NULL), STATUS_OK);
	while (answers < target)
		event_base_loop(base, EVLOOP_ONCE);
	snapshot();
}

/* A small page keeps it small; nothing else depends on it. */
static void make_small_pages(void)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA page_size = 512; PRAGMA journal_mode = WAL", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	chmod(path, 0600);
}

static void make_journal(void)
{
	make_small_pages();
	open_journal();
	snapshot();
	set_number("boot", 1);
	write_entry(1, false);
	write_entry(1, true);
	journal_close(journal); /* a clean end: all of it is in the database, and there is no log */
	for (unsigned i = 0; i < state_count; i++) {
		free(states[i]);
		free(before[i]);
	}
	state_count = 0;
	open_journal();
	snapshot();
	set_number("boot", 2);
	write_entry(2, false);
	write_entry(2, true);
	journal_acknowledge(journal, "6f9619ff-8b86-4d01-b42d-000000000002");
	snapshot();
	write_entry(3, false);
	set_number("latched", 1);
	write_entry(3, true);
	write_entry(4, false);
	last = before[state_count - 1];
	journal_close(journal);
}

static int set_up(void **state)
{
	const char *given = getenv("SEED");
	seed = given ? (unsigned)atoi(given) : 20261122u;
	srandom(seed);
	slowness = getenv("SLOWNESS") != NULL && atoi(getenv("SLOWNESS")) > 1 ? (unsigned)atoi(getenv("SLOWNESS")) : 1;
	snprintf(folder, sizeof folder, "%s/journal-damage-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	umask(077);
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/journal.db", folder);
	base = event_base_new();
	work = calloc(1, sizeof *work);
	make_journal();
	print_message("seed %u, %u moments, database %zu, log %zu, mark %zu bytes\n", seed, state_count, last->size[DATABASE], last->size[LOG], last->size[MARK]);
	return 0;
}

static int tear_down(void **state)
{
	*work = (struct files){ 0 };
	write_files(work);
	rmdir(folder);
	for (unsigned i = 0; i < state_count; i++) {
		free(states[i]);
		free(before[i]);
	}
	free(work);
	event_base_free(base);
	return 0;
}

/* Opening it damaged ------------------------------------------------------------------------------------------------------------------- */

static struct row { const char *what; unsigned tried, whole, healed, refused, violations; } *row;
static struct row rows[24];

static void begin_row(const char *what)
{
	row = row ? row + 1 : rows;
	row->what = what;
}

static void violate(const char *how, long where)
{
	if (row->violations++ < 5)
		print_message("VIOLATION: %s, at %ld: %s\n", row->what, where, how);
}

/* `work`'s files; `marked`: the first of the moments that may be found. */
static void try(unsigned marked, long where)
{
	struct journal_settings settings = { .path = path, .retain_ms = 3600000, .rows_limit = 100 };
	struct journal *opened = NULL;
	char *why = NULL;
	alarm(HANG_S);
	row->tried++;
	enum status status = journal_open(NULL, &settings, &opened, &why);
	if (status != STATUS_OK) {
		if (!why || !strstr(why, "journal.db") || strlen(why) < strlen(path) + 15)
			violate(why ? why : "refused without a word", where);
		row->refused++;
		free(why);
		return;
	}
	char *found = describe(opened);
	journal_close(opened);
	unsigned k = state_count;
	while (k > 0 && strcmp(states[k - 1], found) != 0)
		k--;
	if (k == state_count)
		row->whole++;
	else if (k > marked)
		row->healed++;
	else
		violate(k ? "durable rows are gone without a word" : "rows differ from all that were ever written", where);
	free(found);
}

static void restore(const struct files *files)
{
	*work = *files;
	write_files(work);
}

/* Only what an accepted journal has written over is put there again. */
static bool is_tried(int which, size_t size)
{
	size_t unit = which == LOG ? FRAME : PAGE, past = which == LOG ? (size + unit - LOG_HEADER) % unit : size % unit;
	if (random() % slowness != 0)
		return false;
	return all || which == MARK || past <= 1 || past == unit - 1 || past == 24 || size <= LOG_HEADER || size % STRIDE == seed % STRIDE;
}

static void each_prefix(int which, unsigned marked)
{
	char name[128];
	name_of(which, name);
	memcpy(work, last, sizeof *work);
	memcpy(work->data[MARK], before[marked]->data[MARK], before[marked]->size[MARK]);
	write_files(work);
	unsigned accepted = 0;
	for (size_t size = last->size[which]; size-- > 0;) {
		if (!is_tried(which, size))
			continue;
		if (row->whole + row->healed != accepted) {
			accepted = row->whole + row->healed;
			write_files(work);
		}
		assert_int_equal(truncate(name, (off_t)size), 0);
		try(marked, (long)size);
	}
}

static void every_prefix(void **state)
{
	begin_row("prefix of the database");
	each_prefix(DATABASE, state_count - 1);
	begin_row("prefix of the log");
	each_prefix(LOG, state_count - 1);
	begin_row("prefix of the log, power lost: mark behind");
	each_prefix(LOG, 1);
	begin_row("prefix of the mark");
	each_prefix(MARK, state_count - 1);
}

static void flip(int which, size_t bit)
{
	char name[128];
	name_of(which, name);
	FILE *file = fopen(name, "r+");
	fseek(file, (long)(bit / 8), SEEK_SET);
	fputc(last->data[which][bit / 8] ^ 1 << bit % 8, file);
	fclose(file);
	unsigned accepted = row->whole + row->healed;
	try(state_count - 1, (long)bit);
	if (row->whole + row->healed != accepted) {
		write_files(work);
		return;
	}
	file = fopen(name, "r+");
	fseek(file, (long)(bit / 8), SEEK_SET);
	fputc(last->data[which][bit / 8], file);
	fclose(file);
}

static void flipped_bits(void **state)
{
	static const char *const names[FILES] = { "bit of the database", "bit of the log", "bit of the mark" };
	for (int which = 0; which < FILES; which++) {
		size_t bits = last->size[which] * 8, count = all ? bits : (which == MARK ? 200 : SAMPLED_FLIPS) / slowness;
		begin_row(names[which]);
		restore(last);
		for (size_t i = 0; i < count; i++)
			flip(which, all ? i : (size_t)random() % bits);
	}
	/* Each of them is refused, or was in nothing that says anything. */
	assert_int_equal(row->whole + row->healed, 0);
}

/* Whole files ------------------------------------------------------------------------------------------------------------------------- */

static void take(int which, const struct files *from)
{
	memcpy(work->data[which], from->data[which], sizeof work->data[which]);
	work->size[which] = from->size[which];
	work->there[which] = from->there[which];
}

static void try_files(const char *what, unsigned whole, unsigned refused)
{
	begin_row(what);
	write_files(work);
	try(state_count - 1, 0);
	if (row->whole != whole || row->refused != refused)
		violate("another end than it should have", 0);
}

static void lost_and_foreign_files(void **state)
{
	static struct files other;
	static const uint8_t garbage[] = "this was never a file of SQLite's";
	restore(last);
	try_files("nothing", 1, 0);
	work->there[LOG] = false;
	try_files("no log", 0, 1);
	restore(last);
	work->size[LOG] = 0;
	try_files("empty log", 0, 1);
	restore(last);
	work->there[DATABASE] = false;
	try_files("no database", 0, 1);
	restore(last);
	work->size[DATABASE] = 0;
	try_files("empty database", 0, 1);
	restore(last);
	work->there[MARK] = false;
	try_files("no mark", 0, 1);
	restore(last);
	take(LOG, before[0]);
	try_files("log of an hour ago", 0, 1);
	restore(last);
	take(LOG, before[0]);
	take(DATABASE, before[0]);
	try_files("all but the mark of an hour ago", 0, 1);
	/* Another journal, made likewise. */
	char *kept = states[0];
	struct files *kept_files = before[0];
	unsigned count = state_count;
	state_count = 0;
	*work = (struct files){ 0 };
	write_files(work);
	make_small_pages();
	open_journal();
	snapshot();
	other = *before[0];
	journal_close(journal);
	free(states[0]);
	free(before[0]);
	state_count = count;
	states[0] = kept;
	before[0] = kept_files;
	restore(last);
	take(LOG, &other);
	try_files("another one's log", 0, 1);
	restore(last);
	take(MARK, &other);
	try_files("another one's mark", 0, 1);
	restore(last);
	take(LOG, &other);
	take(DATABASE, &other);
	try_files("another one's database and log", 0, 1);
	restore(last);
	memcpy(work->data[LOG], garbage, sizeof garbage);
	try_files("log begins with something else", 0, 1);
	char name[128];
	restore(last);
	begin_row("foreign shm");
	snprintf(name, sizeof name, "%s-shm", path);
	FILE *file = fopen(name, "w");
	for (int i = 0; i < 1000; i++)
		fwrite(garbage, 1, sizeof garbage, file);
	fclose(file);
	try(state_count - 1, 0);
	assert_int_equal(row->whole, 1);
}

static void table(void **state)
{
	unsigned violations = 0;
	print_message("%-46s %7s %7s %7s %7s %10s\n", "journal damage", "opened", "whole", "healed", "refused", "violations");
	for (const struct row *at = rows; at->what; at++) {
		print_message("%-46s %7u %7u %7u %7u %10u\n", at->what, at->tried, at->whole, at->healed, at->refused, at->violations);
		violations += at->violations;
	}
	assert_int_equal(violations, 0);
}

int main(int argc, char **argv)
{
	all = argc > 1 && strcmp(argv[1], "--all") == 0;
	const struct CMUnitTest tests[] = { cmocka_unit_test(lost_and_foreign_files), cmocka_unit_test(every_prefix), cmocka_unit_test(flipped_bits), cmocka_unit_test(table) };
	return cmocka_run_group_tests_name("journal_damage", tests, set_up, tear_down);
}
