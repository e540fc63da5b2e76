#include "faults.h"

#include <stdlib.h>
#include <string.h>

#include "values.h"

struct name_row {
	const char *name;
	int value;
};
static const struct name_row on_rows[] = { { "any", FAULT_ON_ANY }, { "bind", FAULT_ON_BIND }, { "search", FAULT_ON_SEARCH }, { "modify", FAULT_ON_MODIFY },
	{ "extended", FAULT_ON_EXTENDED }, { "connect", FAULT_ON_CONNECT }, { NULL, 0 } };
static const struct name_row action_rows[] = { { "result", FAULT_RESULT }, { "delay", FAULT_DELAY }, { "stall", FAULT_STALL }, { "cut-before", FAULT_CUT_BEFORE },
	{ "cut-after", FAULT_CUT_AFTER }, { "referral", FAULT_REFERRAL }, { "garbage", FAULT_GARBAGE }, { "drop", FAULT_DROP }, { "swallow", FAULT_SWALLOW }, { NULL, 0 } };

static const struct name_row *row_of(const struct name_row *rows, const char *name, size_t size)
{
	while (rows->name && (strlen(rows->name) != size || strncmp(rows->name, name, size)))
		rows++;
	return rows->name ? rows : NULL;
}

static void fault_free(struct fault *fault)
{
	free(fault->user);
	free(fault->text);
	free(fault->url);
	free(fault);
}

static bool read_count(const char *text, long *ret_number)
{
	char *end;
	*ret_number = strtol(text, &end, 10);
	return *text && !*end && *ret_number >= 0 && *ret_number < 1000000000;
}

static bool read_action(struct fault *fault, const struct name_row *row, const char *value)
{
	long code;
	fault->action = (enum fault_action)row->value;
	switch (fault->action) {
	case FAULT_RESULT:
		if (!read_count(value, &code))
			return false;
		fault->code = (int)code;
		return true;
	case FAULT_DELAY:
		return read_count(value, &fault->delay_ms);
	case FAULT_REFERRAL:
		fault->code = 10;
		fault->url = must_strdup(value);
		return *value;
	default:
		return !*value;
	}
}

static bool read_word(struct fault *fault, const char *word, bool *acted)
{
	const char *equals = strchr(word, '=');
	size_t size = equals ? (size_t)(equals - word) : strlen(word);
	const char *value = equals ? equals + 1 : "";
	const struct name_row *row = row_of(action_rows, word, size);
	if (row) {
		bool first = !*acted;
		*acted = true;
		return first && read_action(fault, row, value);
	}
	if (!strncmp(word, "on=", 3)) {
		row = row_of(on_rows, value, strlen(value));
		fault->on = row ? (enum fault_on)row->value : FAULT_ON_ANY;
		return row;
	}
	char **text = !strncmp(word, "user=", 5) ? &fault->user : !strncmp(word, "text=", 5) ? &fault->text : NULL;
	if (text && !*text) {
		*text = must_strdup(value);
		return true;
	}
	if (!strcmp(word, "count=forever") || !strcmp(word, "forever")) {
		fault->left = -1;
		return true;
	}
	return !strncmp(word, "count=", 6) && read_count(value, &fault->left);
}

struct fault *faults_add(struct faults *faults, char **words, size_t count, const char **ret_why)
{
	struct fault *fault = must_alloc(sizeof *fault);
	bool acted = false;
	fault->left = 1;
	*ret_why = NULL;
	for (size_t i = 0; i < count && !*ret_why; i++)
		if (!read_word(fault, words[i], &acted))
			*ret_why = words[i];
	if (!acted && !*ret_why)
		*ret_why = "no action";
	if (*ret_why) {
		fault_free(fault);
		return NULL;
	}
	struct fault **tail = &faults->first;
	while (*tail)
		tail = &(*tail)->next;
	return *tail = fault;
}

static void drop_used(struct faults *faults)
{
	for (struct fault **at = &faults->first, *used; (used = *at);) {
		if (used->left) {
			at = &used->next;
			continue;
		}
		*at = used->next;
		fault_free(used);
	}
}

bool faults_take(struct faults *faults, enum fault_on on, bool (*concerns)(const char *user, void *arg), void *arg, struct fault *ret_fault)
{
	if (!faults->first)
		return false;
	drop_used(faults);
	for (struct fault *fault = faults->first; fault; fault = fault->next) {
		if (fault->on != on && (fault->on != FAULT_ON_ANY || on == FAULT_ON_CONNECT))
			continue;
		if (fault->user && !concerns(fault->user, arg))
			continue;
		if (fault->left > 0)
			fault->left--;
		*ret_fault = *fault;
		return true;
	}
	return false;
}

void faults_clear(struct faults *faults)
{
	for (struct fault *fault = faults->first; fault; fault = fault->next)
		fault->left = 0;
	drop_used(faults);
}
