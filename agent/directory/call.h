/* call: what one call holds, shared by call.c (its life and the public functions), writing.c (those that write or verify), reading.c (finding a user and reading everything about him) and groups.c (the groups of a user whose directory does not compute them). */
#ifndef AGENT_DIRECTORY_CALL_H
#define AGENT_DIRECTORY_CALL_H

#include "agent/directory/verification.h"

struct located {
	unsigned references;
	char *name;                    /* for base search and modify */
	struct connection *connection;
	unsigned generation;
	uint8_t guid[16];
	struct user_facts user;
	struct server_position position;
};

/* Groups found by searches, breadth first: the DNs whose own groups are asked for next start at `asked`. */
struct group_walk {
	char **dns;
	size_t count, asked;
	unsigned searches;
	void (*done)(struct directory_call *call);
};

enum call_kind { CALL_LOCATE, CALL_RECHECK, CALL_WRITE, CALL_LOOKUP_SID, CALL_RIGHTS, CALL_VERIFY };
enum { OPERATION_FIND, OPERATION_USER, OPERATION_POSITION, OPERATION_DOMAIN, OPERATION_POLICY, OPERATION_GROUPS, OPERATION_WRITE, OPERATION_COUNT };

struct directory_call {
	TAILQ_ENTRY(directory_call) link, queue_link;
	struct directory *directory;
	enum call_kind kind;
	bool queued, finished;
	enum status status;
	struct directory_answer answer;
	int64_t deadline_us;
	struct event *timer, *finish;
	struct event *impatience;      /* of a call that any server may answer, while its first attempt lasts; else NULL */

	char *id, *prefer, *avoid;     /* avoid: a server that let an attempt time out */
	char *exclude;                 /* a server that must not be asked */
	char *name;                    /* of the user, for base search and modify; NULL: not found yet */
	enum locate_by by;
	uint8_t guid[16];
	struct connection *connection; /* a reference, while it asks */
	unsigned generation;
	struct operation *operations[OPERATION_COUNT];
	unsigned pending;              /* reads of the user not answered yet */
	struct user_facts user;
	enum status user_status;
	struct server_position position;
	struct located *located;
	struct sid sid;
	bool any_object;               /* of a lookup: one without a SID will do */
	struct directory_rights rights;
	struct group_walk walk;        /* where groups are found by searches */
	enum ad_operation operation;   /* of a write */
	struct verification *verification; /* NULL: none is under way */
	struct change *after;          /* what follows the write, once that has been applied; NULL: nothing */
	union {
		locate_done locate;
		recheck_done recheck;
		write_done write;
		lookup_sid_done lookup;
		rights_done rights;
		verify_done verify;
	} done;
	void *arg;
};

static inline void position_clear(struct server_position *position)
{
	free(position->server);
	*position = (struct server_position){ 0 };
}

/* A call on the connection that the user was read from, which must still be the same one. */
enum status call_on(struct located *located, enum call_kind kind, int64_t timeout_ms, void *arg, struct directory_call **ret_call) MUST_USE;
/* Without its callback. */
void call_free(struct directory_call *call);
/* What a connection of the user's own has come to: the bind alone, or a write behind it. */
void call_note_stage(struct directory_call *call, enum verification_stage stage, bool answered);
/* Ends the call; its callback comes with the loop's next turn. The first end counts. */
void call_finish(struct directory_call *call, enum status status);
/* An operation could not be started or was lost. What has no connection of its own goes to another one, while there is time. */
void call_fail_attempt(struct directory_call *call, enum status status);
/* True where the reply is an answer that is fit to be looked at; else the call has been seen to. */
bool call_take_reply(struct directory_call *call, size_t slot, const struct reply *reply);
/* The status of an answer, which is noted for the log. */
enum status call_judge(struct directory_call *call, enum ad_operation operation, const struct reply *reply);
/* How long the next operation may take: a read that can be repeated elsewhere gets half of what is left. */
int64_t call_attempt_ms(const struct directory_call *call);

/* groups.c: finds the groups of call->user, then calls `done`; false at once where the flavor has read them already. What cannot be read leaves groups_read false. */
bool groups_start(struct directory_call *call, void (*done)(struct directory_call *call));
void group_walk_clear(struct group_walk *walk);

/* reading.c: finds call->id on call->connection, then reads; reads call->guid. Both end the call. */
void reading_find(struct directory_call *call);
void reading_start(struct directory_call *call);
/* Reads the rights on call->located. */
void reading_rights(struct directory_call *call);

#endif
