#include "agent/ctl/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "agent/ctl/agent_call.h"
#include "base/bytes.h"

const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));
	return text ? text : "";
}

void print_json(const json_t *json)
{
	json_dumpf(json, stdout, JSON_INDENT(2));
	puts("");
}

int report(bool json, int exit_status, const char *code, const char *format, ...)
{
	char *text = NULL;
	va_list arguments;
	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	fprintf(stderr, "writebackctl: %s\n", text ? text : code);
	json_t *object = json ? json_pack("{s:s,s:s}", "error", code, "text", text ? text : "") : NULL;
	if (json)
		print_json(object ? object : json_null());
	json_decref(object);
	free(text);
	return exit_status;
}

static int report_refusal(bool json, const json_t *answer)
{
	const char *error = text_of(answer, "error"), *text = text_of(answer, "text");
	if (strcmp(text_of(answer, "kind"), "usage") == 0)
		return report(json, EX_USAGE, error, "%s", text);
	return report(json, strcmp(error, "local.permission") == 0 ? EX_NOPERM : EXIT_DEGRADED, error, "%s (%s)", text, error);
}

/* Control characters, C1 ones too, as '?': what a stranger wrote (the channel's program, a directory's diagnostics) must not command the terminal or make a line of its own. */
static void plain_string(json_t *string)
{
	AUTO_FREE char *text = strdup(json_string_value(string));
	for (unsigned char *at = (unsigned char *)text; at && *at; at++) {
		if (*at < 0x20 || *at == 0x7f)
			*at = '?';
		else if (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
			at[0] = at[1] = '?';
	}
	json_string_set(string, text ? text : "");
}

void plain_strings(json_t *json)
{
	void *iterator = json_object_iter(json);
	if (json_is_string(json))
		plain_string(json);
	for (size_t i = 0; i < json_array_size(json); i++)
		plain_strings(json_array_get(json, i));
	for (; iterator; iterator = json_object_iter_next(json, iterator))
		plain_strings(json_object_iter_value(iterator));
}

int ask_agent(bool json, const char *socket_path, json_t *take_input, json_t **ret_answer)
{
	*ret_answer = NULL;
	enum status status = agent_call(socket_path, take_input, ret_answer);
	if (status == STATUS_OK && !json)
		plain_strings(*ret_answer);
	if (status == STATUS_OK && !json_object_get(*ret_answer, "error"))
		return 0;
	if (status == STATUS_OK) {
		int result = report_refusal(json, *ret_answer);
		json_decref(*ret_answer);
		*ret_answer = NULL;
		return result;
	}
	if (status == STATUS_LOCAL_PERMISSION)
		return report(json, EX_NOPERM, "local.permission", "%s: permission denied: run it as root", socket_path);
	if (status == STATUS_CHANNEL_REFUSED)
		return report(json, EXIT_NOT_RUNNING, "not_running", "the agent is not running (%s)", socket_path);
	return report(json, EXIT_NOT_RUNNING, status_code(status), "the agent does not answer: %s", status_code(status));
}
