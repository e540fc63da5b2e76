/* log: one line a fact. Only modules that coordinate write logs; parsers and rules return a status instead.
 *
 * A line has a level, an event (a stable dotted word, e.g. "request.end", "channel.down"), a sentence for people and fields.
 * Under systemd (JOURNAL_STREAM is set for stderr) it goes to the journal by sd_journal_send with MESSAGE_ID (derived from the event) and
 * WB_… fields, its message being the text form without time and level; else to stderr as text or, with LOG_FORMAT_JSON, as one JSON object a line:
 *
 *     2026-11-22T16:40:01.123Z info request.end operation_id=6f… code=ok duration_ms=12 : reset of 6f9619ff… applied by dc1
 *
 * Writing never blocks the caller: a thread of its own writes from a queue of 4,096 lines; what does not fit is counted and the
 * count is logged when there is room. Values are bounded (1,024 bytes), control characters and invalid UTF-8 are escaped.
 * Never give it a secret. All functions may be called from any thread. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

#include "base/status.h"

enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_TEXT, LOG_FORMAT_JSON, LOG_FORMAT_JOURNAL };

/* Names of fields that are common, so that they are the same everywhere: in the journal they appear in upper case behind "WB_". */
#define LOG_OPERATION_ID "operation_id"
#define LOG_REQUEST_ID "request_id"
#define LOG_AGENT_ID "agent_id"
#define LOG_OP "op"
#define LOG_STATUS "status"
#define LOG_CODE "code"
#define LOG_USER_GUID "user"        /* the objectGUID, never a name */
#define LOG_SERVER "server"
#define LOG_LDAP_RESULT "ldap_result"
#define LOG_AD_CODE "ad_code"
#define LOG_DURATION_MS "duration_ms"

/* A field whose value is NULL is left out. Both are copied. */
struct log_field {
	const char *name;
	const char *value;
};

/* Starts the writer; `program` is the SYSLOG_IDENTIFIER. Lines above `level` are dropped. Without it, lines go to stderr at once (tests). */
void log_start(const char *program, enum log_format format, int level);
/* Writes what is queued (at most one second long) and ends the writer. */
void log_stop(void);
void log_set_level(int level);
/* Lines dropped since the start because the sink did not take them. */
uint64_t log_dropped(void);

/* `fields` ends with a row whose name is NULL; NULL for none. */
void log_event(int level, const char *event, const struct log_field *fields, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* Of what a peer that is not trusted can cause at will: 60 lines at once, then one in 2 s. Zeroed at first; not for several threads. */
struct log_budget {
	unsigned spent, withheld;
	int64_t since_us;
};
/* Whether one more may be written. How many were left out stands in a line of its own (log.withheld) once there is room again. */
bool log_allowed(struct log_budget *budget);
#define LOG_FIELDS(...) ((const struct log_field[]){ __VA_ARGS__, { 0 } })

#endif
