/* journal: what the agent must not forget: which requests it has seen and how each ended, durable in SQLite (base/database), with an index in memory so that looking up never waits.
 *
 * A request has a row from its intent or, where it is refused before, from its outcome; it is forgotten once the service has acknowledged the outcome and its exp has passed; where nothing
 * was changed, exp alone will do after a while, so that a service that acknowledges nothing cannot fill the journal. No password, not even
 * encrypted, is ever in it: ids, a hash of the frame, states, outcomes. Each row carries a checksum: SHA-256 over its fields, length-prefixed.
 *
 * On the loop's thread; callbacks fire on the loop after the commit. */
#ifndef AGENT_JOURNAL_JOURNAL_H
#define AGENT_JOURNAL_JOURNAL_H

#include <event2/event.h>

#include "base/bytes.h"
#include "base/status.h"

struct journal;

/* As numbers they stand in the file. SETTLING: the one bind that decides may have been sent; AGAIN: and, the agent having ended behind it, once more. */
enum journal_state { JOURNAL_INTENT, JOURNAL_SETTLING, JOURNAL_OUTCOME, JOURNAL_SETTLING_AGAIN };
struct journal_entry {
	char request_id[UUID_SIZE], operation_id[UUID_SIZE];
	uint8_t frame_sha256[32];       /* of what is signed in it, not of the signature (jose_signed_part) */
	int64_t exp;                    /* seconds */
	enum journal_state state;
	/* The intent: what settling needs. Empty strings and zeros where there was none. */
	char op[16];
	char user_guid[UUID_SIZE];
	char directory[64];
	char server[256];
	uint8_t invocation_id[16];
	uint64_t highest_committed_usn;
	uint32_t password_version;
	uint8_t password_originator[16];
	uint64_t password_originating_usn;
	int64_t intent_at_ms;
	/* The second intent of the same request: its write's answer was lost, and the same is written on another server. Empty and zeros where there was none. */
	char second_server[256];
	uint8_t second_invocation_id[16];
	uint64_t second_committed_usn;
	uint32_t second_password_version;
	uint8_t second_password_originator[16];
	uint64_t second_password_originating_usn;
	int64_t second_at_ms;
	/* The outcome. */
	int64_t outcome_at_ms;
	int64_t outcome_us;             /* by the monotonic clock; 0: before the agent's start. Not in the file */
	char code[40];                  /* status_code(); "" before */
	bool counts;                    /* a password or unlock write that was applied, or may have been: the throttle counts it */
	bool sets_password;
	int64_t wrong_at_ms;            /* a password that was tried for it then was not the user's, or may not have been; 0: none */
	char *result;                   /* the payload of the final result as JSON without iat, as result_build made it; NULL before */
	bool acknowledged;
	bool pending;                   /* set by the journal in what it hands out: the last change is not on disk yet, so nobody may be told of it */
};

struct journal_settings {
	const char *path;
	int64_t retain_ms;              /* a row is kept at least so long for `writebackctl journal` and the throttle: 3,600,000; less, where the journal is more than half full, for one
	                                 * that does not count, and from three quarters on for every one: whoever allows so many writes does not limit them */
	unsigned rows_limit;            /* 20,000: more unforgotten rows are agent.journal; a row takes about 2 KiB of memory. A quarter of them at most are refusals: rows of outcomes
	                                 * without an intent that do not count */
};
/* Opens, checks every row's checksum, fills the index. With a sentence: STATUS_LOCAL_DAMAGED where it is damaged, incomplete, older than it was or foreign,
 * STATUS_AGENT_JOURNAL where it cannot be read or written now, STATUS_LOCAL_PERMISSION for owner and mode: never a silent fresh start. */
enum status journal_open(struct event_base *base, const struct journal_settings *settings, struct journal **ret_journal, char **ret_why) MUST_USE;
void journal_close(struct journal *journal);

/* Borrowed, valid until the loop turns; NULL where unknown. */
const struct journal_entry *journal_find(const struct journal *journal, const char *request_id);
/* Calls for each entry, in order of arrival; false from `each` ends it. */
void journal_each(const struct journal *journal, bool (*each)(const struct journal_entry *entry, void *arg), void *arg);
unsigned journal_unacknowledged(const struct journal *journal);
/* Writing works: false after a failed commit until one succeeds (a probe every 5 s); each change is a line of the log. While false nothing may be applied. */
bool journal_writable(const struct journal *journal);

/* Both copy `entry`, and the index knows it at once, so that a duplicate that arrives meanwhile is seen. `done` tells whether it is on disk: STATUS_OK, or agent.journal, and the index is again what is on disk (a new
 * intent is out of it). An intent may be written again: for another server, before anything was sent to the first, or with the second intent. An outcome may be JOURNAL_SETTLING or JOURNAL_SETTLING_AGAIN, which is
 * replaced; a final one stands. A refused call returns the status at once and `done` does not fire: agent.journal while nothing can be written (intents) or rows_limit is reached (new requests), agent.overloaded
 * where the queue is full or a quarter of the rows are refusals and this is one more, agent.internal when memory is out or the entry has a final outcome already. */
typedef void (*journal_done)(enum status status, void *arg);
enum status journal_intent(struct journal *journal, const struct journal_entry *entry, journal_done done, void *arg) MUST_USE;
enum status journal_outcome(struct journal *journal, const struct journal_entry *entry, journal_done done, void *arg) MUST_USE;
/* The service has the outcome. Written without a callback; losing it costs one more delivery. */
void journal_acknowledge(struct journal *journal, const char *request_id);
/* The agent is another one now: what is not acknowledged concerns nobody any more. Not while requests are under way. */
void journal_abandon(struct journal *journal);
/* Drops entries past exp and retain_ms that are acknowledged or do not count; called by the agent every few seconds. The highest exp dropped is kept on disk. */
void journal_forget(struct journal *journal, int64_t now_ms);
/* The highest exp ever forgotten, in seconds; 0 at first. Requests at or below it are refused by time alone. */
int64_t journal_forgotten_exp(const struct journal *journal);

/* Numbers that survive a restart: "boot", "latched", "key_set_version" and so on, each by whom it concerns: at most 16, names of at most 31 bytes; one that has no place counts as a failed write. */
int64_t journal_number(const struct journal *journal, const char *name, int64_t initial);
/* It is known to be on disk as it is here. */
bool journal_has_number(const struct journal *journal, const char *name);
/* Asynchronous; durable before a `done` of anything submitted later. What fails is tried again, with the probe. */
void journal_set_number(struct journal *journal, const char *name, int64_t value);
/* And `done` tells whether this try has it on disk. Refused, with the status at once and without `done`: agent.overloaded where the queue is full, agent.internal when memory is out. */
enum status journal_store_number(struct journal *journal, const char *name, int64_t value, journal_done done, void *arg) MUST_USE;

#endif
