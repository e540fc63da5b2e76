/* operations: the life of what a portal asks for, from the question to the agent's final word.
 *
 *     asked -> (recorded, its request made durable) -> queued at an agent -> on the wire -> finished
 *
 * Where another agent is asked (attempts.c) there are several requests: store_operation_finish says which word counts when.
 * An operation is bound to one agent when it is asked: the least loaded that is connected, allows it and serves the directory. Where that agent's channel breaks,
 * the same bytes go to its next channel. Those without a final outcome are in memory, after a restart too; finished ones are in the store only.
 * The password is gone when operations_ask returns. All on the loop. */
#ifndef SERVICE_OPERATIONS_H
#define SERVICE_OPERATIONS_H

#include "service/hub.h"

struct operations;

/* What was asked; borrowed for the call. */
struct operation_question {
	char operation_id[UUID_SIZE];
	enum operation op;
	struct subject subject;
	struct bytes new_password, old_password; /* empty where there is none */
	const json_t *secrets;          /* JWEs by the thumbprint of a decryption key, or NULL */
	bool must_change, unlock, enforce_policy;
	const char *directory;          /* NULL: not named */
	enum actor actor;
	const char *actor_id;
	uint8_t content[32];            /* keyed hash over everything that the caller sent, less the passwords */
	int64_t wait_ms;
};

/* Called once: STATUS_OK with the operation as it stands; STATUS_REQUEST_REPLAYED: this id stands for another content; STATUS_SERVICE_OVERLOADED: not
 * taken in; STATUS_AGENT_JOURNAL: the store does not work. `row` is borrowed, NULL unless STATUS_OK. */
typedef void (*operation_answer)(enum status status, const struct operation_row *row, void *arg);

enum status operations_new(struct event_base *base, const struct settings *settings, const struct keys *keys, struct database *database, struct hub *hub,
                           struct operations **ret_operations) MUST_USE;
/* Every waiter must have been answered (operations_answer_all). */
void operations_free(struct operations *operations);
/* Takes up what a former run left open. Before the loop runs. */
enum status operations_restore(struct operations *operations) MUST_USE;
void operations_set_keys(struct operations *operations, const struct keys *keys);

/* `answer` may be called before it returns. */
void operations_ask(struct operations *operations, const struct operation_question *question, operation_answer answer, void *arg);
/* One that is not finished; NULL: look into the store. */
const struct operation_row *operations_find(struct operations *operations, const char *operation_id);
/* Those who wait get the operation as it stands. */
void operations_answer_all(struct operations *operations);
/* Requests that an agent has and has not answered. */
unsigned operations_on_wire(const struct operations *operations);

/* The callbacks for the hub. */
struct hub_callbacks operations_hub_callbacks(struct operations *operations);

/* The agent with the least load for what it takes in flight that may be asked, or NULL; of several the one that was chosen longest ago. `secrets` as in the question: only agents that it has a JWE for. Pure. */
struct agent *operations_choose(struct agent *agents, enum operation op, const char *directory, const json_t *secrets);

#endif
