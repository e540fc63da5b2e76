/* report: how writebackctl says that something went wrong: a sentence on standard error, and with --json an object on standard output, always. */
#ifndef AGENT_CTL_REPORT_H
#define AGENT_CTL_REPORT_H

#include <jansson.h>
#include <stdbool.h>

/* Beside sysexits. */
enum { EXIT_DEGRADED = 1, EXIT_NOT_RUNNING = 3 };

/* Returns `exit_status`. `code` is a word for programs. */
int report(bool json, int exit_status, const char *code, const char *format, ...) __attribute__((format(printf, 4, 5)));
void print_json(const json_t *json);

/* What a stranger wrote, before any of it is shown: every control character of every string (member names apart) becomes '?'. NULL does nothing. */
void plain_strings(json_t *json);

/* Asks the agent. 0, with the answer; else the exit status, and it has been reported. */
int ask_agent(bool json, const char *socket_path, json_t *take_input, json_t **ret_answer);
const char *text_of(const json_t *object, const char *name);

#endif
