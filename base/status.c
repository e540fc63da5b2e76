#include "base/status.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct row {
	const char *code;
	enum outcome outcome;
	int level;
	enum retry retry;
	const char *user;
	const char *admin;
};

static const struct row rows[STATUS_COUNT] = {
#define X(name, code, outcome, level, retry, user, admin) [name] = { code, outcome, level, retry, user, admin },
	STATUS_CODES(X)
#undef X
};

static const char *const outcome_names[] = {
	[OUTCOME_NONE] = "none",       [OUTCOME_APPLIED] = "applied", [OUTCOME_ANSWERED] = "answered", [OUTCOME_REFUSED] = "refused",
	[OUTCOME_FAILED] = "failed",   [OUTCOME_UNKNOWN] = "unknown", [OUTCOME_SETTLING] = "settling",
};
#define OUTCOMES (sizeof outcome_names / sizeof outcome_names[0])

static const struct row *row(enum status status)
{
	return &rows[(unsigned)status < STATUS_COUNT ? status : STATUS_AGENT_INTERNAL];
}

const char *status_code(enum status status) { return row(status)->code; }
enum outcome status_outcome(enum status status) { return row(status)->outcome; }
int status_level(enum status status) { return row(status)->level; }
const char *status_user_text(enum status status) { return row(status)->user; }
const char *status_admin_text(enum status status) { return row(status)->admin; }

bool status_from_code(const char *code, enum status *ret_status)
{
	for (unsigned i = 0; i < STATUS_COUNT; i++)
		if (strcmp(rows[i].code, code) == 0) {
			*ret_status = i;
			return true;
		}
	return false;
}

enum status status_because(enum status status, char **ret_why, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (ret_why != NULL && vasprintf(ret_why, format, args) < 0)
		*ret_why = NULL;
	va_end(args);
	return status;
}

const char *outcome_name(enum outcome outcome)
{
	return outcome_names[(unsigned)outcome < OUTCOMES ? outcome : OUTCOME_NONE];
}

bool outcome_from_name(const char *name, enum outcome *ret_outcome)
{
	for (unsigned i = OUTCOME_APPLIED; i < OUTCOMES; i++)
		if (strcmp(outcome_names[i], name) == 0) {
			*ret_outcome = i;
			return true;
		}
	return false;
}

bool outcome_is_final(enum outcome outcome)
{
	return outcome != OUTCOME_NONE && outcome != OUTCOME_SETTLING;
}
