/* What operations.c (the life of an operation), task.c (those in memory and who waits for them) and attempts.c (asking another agent) share. */
#ifndef SERVICE_OPERATIONS_INTERNAL_H
#define SERVICE_OPERATIONS_INTERNAL_H

#include "service/operations.h"

#define BUCKETS 1024

/* Creating: not durable yet. Recording: another attempt is not yet. Finishing: a final word is not yet, or (finished) a job is still under way. */
enum stage_of_life { LIFE_CREATING, LIFE_QUEUED, LIFE_RECORDING, LIFE_SENT, LIFE_FINISHING };

struct waiter {
	struct waiter *next;
	struct task *task;
	struct event *timer;
	bool due;                       /* its time is up, but the operation is not yet durable */
	operation_answer answer;
	void *arg;
};

/* Another agent that may be asked where the first is lost: its JWE is made while the password is here. NULL agent: none. */
struct spare {
	struct agent *agent;
	char *jwe;                      /* NULL where the operation has no secret */
};

struct task {
	struct task *next, *previous;   /* in the order they were asked */
	struct task *same_bucket;
	struct operations *owner;
	struct operation_row row;
	struct request_row request;
	struct agent *agent;            /* NULL: there was none */
	enum stage_of_life life;
	bool on_wire;                   /* counts against the agent's max_in_flight */
	bool sent_before;               /* an agent may know it: no longer ours to give up */
	bool request_sent;              /* the present request has left */
	int64_t again_us;               /* monotonic: from then on the same bytes go once more on this channel; 0: no, the agent has it */
	unsigned pauses;                /* how often that was brought forward on this channel */
	int64_t failover_us;            /* another agent may be asked so long after the present one's channel has ended; 0: not before exp */
	unsigned words;                 /* final words that are being recorded: nothing is sent and nobody else is asked meanwhile */
	int64_t queue_until_ms;
	bool finished;                  /* its final word is durable and told; only jobs under way keep it */
	struct spare spares[MAX_SPARES];
	char *prior_server;             /* where a provisional result named it */
	struct waiter *waiters;
};

struct operations {
	struct event_base *base;
	const struct settings *settings;
	const struct keys *keys;
	struct database *database;
	struct hub *hub;
	struct event *sweep;
	struct task *first, *last;
	struct task *buckets[BUCKETS];
	unsigned count;
	uint64_t turn;                  /* of the operations that were asked: who was chosen longest ago is next where all have the same load */
};

/* task.c */
struct task *task_find(struct operations *operations, const char *operation_id);
struct task *task_new(struct operations *operations, const char *operation_id);
void task_free(struct task *task);
void task_set_life(struct task *task, enum stage_of_life life);
/* From one agent to another, or none. */
void task_bind(struct task *task, struct agent *agent);
void task_leave_wire(struct task *task);
void task_add_waiter(struct task *task, int64_t wait_ms, operation_answer answer, void *arg);
void task_answer_waiters(struct task *task, enum status status, const struct operation_row *row, bool only_due);
void task_drop_spares(struct task *task);

/* attempts.c */
/* Keeps what is needed to ask up to MAX_SPARES other agents that are connected now. Failure only means that there are fewer. */
void attempts_prepare(struct task *task, const struct operation_question *question);
/* For the store; borrowed. */
void attempts_list_spares(const struct task *task, struct spare_row ret_spares[MAX_SPARES]);
/* What a former run has left, from the request's frame, the operation's row and the spares, whose JWEs are taken. */
void attempts_restore(struct task *task, struct spare_row spares[MAX_SPARES]);
/* The claim of the request that is made next: 0 where nobody else could be asked. Seconds. */
int64_t attempts_failover_after(const struct task *task);
/* Where the task's agent is lost and may no longer act on the request (or never got it), makes a request for a spare one. False where there is nothing to do. */
bool attempts_next(struct task *task, int64_t now_ms);

/* The frame has left: what has no word of its request goes again at exp, when it has an answer unless the agent works on it still, and every 4 s behind that: the agent passes over what it cannot
 * verify but for ten a second. */
void attempts_sent(struct task *task, int64_t now_ms);
/* The agent itself failed at the frame and has judged nothing, or could not verify it and may yet (proto/README.md 6.2): the same bytes go again after a pause, each longer than the one before. */
void attempts_again_sooner(struct task *task);
bool attempts_again_due(const struct task *task);

/* operations.c: sends what waits for a place at this agent. */
void operations_advance(struct operations *operations, struct agent *agent);

#endif
