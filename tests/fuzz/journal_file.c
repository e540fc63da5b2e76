/* The journal's file, its write-ahead log behind it, and the mark beside it: two bytes say how many half kilobytes the file has, the rest is the log; where the highest bit is set, the last 90
 * octets are the mark's. What is opened can be read; what is not is refused with a sentence and never begun anew. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/journal/journal.h"
#include "base/secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MARK_SIZE = 90 };

static char folder[] = "/dev/shm/fuzz-journal-XXXXXX", path[64], log_path[64], shared_path[64], mark_path[64];

static void remove_all(void)
{
	unlink(path);
	unlink(log_path);
	unlink(shared_path);
	unlink(mark_path);
	rmdir(folder);
}

static void start(void)
{
	if (mkdtemp(folder) == NULL)
		abort();
	snprintf(path, sizeof path, "%s/j", folder);
	snprintf(log_path, sizeof log_path, "%s/j-wal", folder);
	snprintf(shared_path, sizeof shared_path, "%s/j-shm", folder);
	snprintf(mark_path, sizeof mark_path, "%s/j.mark", folder);
	atexit(remove_all);
}

static void put(const char *name, const uint8_t *data, size_t size)
{
	FILE *file = fopen(name, "we");
	if (file == NULL || fchmod(fileno(file), 0600) < 0 || fwrite(data, 1, size, file) != size || fclose(file) != 0)
		abort();
}

static bool on_entry(const struct journal_entry *entry, void *arg)
{
	const struct journal *journal = arg;
	if (!uuid_valid(entry->request_id) || entry->state > JOURNAL_OUTCOME || journal_find(journal, entry->request_id) != entry)
		abort();
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct journal *journal = NULL;
	char *why = NULL;
	if (path[0] == 0)
		start();
	if (size < 3 || size > 1 << 16)
		return 0;
	size_t units = data[0] + 256U * (data[1] & 0x7f), mark = data[1] < 0x80 ? 0 : size - 2 < MARK_SIZE ? size - 2 : MARK_SIZE;
	size -= mark;
	size_t file = units * 512 < size - 2 ? units * 512 : size - 2;
	put(path, data + 2, file);
	unlink(log_path);
	unlink(shared_path);
	unlink(mark_path);
	if (mark > 0)
		put(mark_path, data + size, mark);
	if (file < size - 2)
		put(log_path, data + 2 + file, size - 2 - file);
	const struct journal_settings settings = { .path = path, .retain_ms = 3600000, .rows_limit = 100 };
	enum status status = journal_open(NULL, &settings, &journal, &why);
	if (status == STATUS_OK ? journal == NULL : journal != NULL || why == NULL)
		abort();
	if (status == STATUS_OK) {
		journal_each(journal, on_entry, journal);
		(void)journal_forgotten_exp(journal);
		journal_close(journal);
	}
	free(why);
	return 0;
}
