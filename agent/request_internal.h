/* request_internal: what request.c and request_*.c share. Nobody else includes it. request.c: the order, and the life of a request; request_intake.c: before it; request_locate.c, request_admit.c,
 * request_write.c and request_question.c: its stages; request_outcome.c and request_withhold.c: the end; request_settle.c and the rest: what becomes of a write. */
#ifndef AGENT_REQUEST_INTERNAL_H
#define AGENT_REQUEST_INTERNAL_H

#include <event2/event_struct.h>

#include "agent/gate/verify.h"
#include "agent/refusals.h"
#include "agent/request.h"
#include "base/log.h"

struct request_stage;

/* How far ahead the exp of a request can be that is taken in (gate/verify.h). */
#define REQUEST_EXP_MAX_S 180

/* One write of a request: the first, and the second where the answer to the first was lost. */
struct attempt {
	bool looked_again;                /* just before it, once more, since rechecked_us was long ago */
	bool open;                        /* it was sent, or the agent ended before that could be known, and its fate is not */
	struct located *sent_over;        /* whose connection it went over, while that may still stand; else NULL */
	int64_t lost_us;                  /* when the connection was given up that it went over, by clock_boottime_us(): the wall clock may be set back while this is settled, and the host suspended */
	int64_t unchanged_us;             /* the first of the latest readings in a row that showed no write; 0: none */
	struct replication_record foreign;/* known: it stood there, and the one bind showed that it is not ours */
};
enum { FIRST, SECOND, ATTEMPTS };
/* What a reading says of one write. */
enum verdict { VERDICT_APPLIED, VERDICT_UNCHANGED, VERDICT_REPLACED, VERDICT_UNREADABLE };
/* What the one bind says: of the password that was to be set, whether it is the user's. MUST_CHANGE: it is, and has to be changed. */
enum proof { PROOF_NOTHING, PROOF_RIGHT, PROOF_RIGHT_MUST_CHANGE, PROOF_WRONG };

struct request {
	struct requests *all;
	struct request *next, *previous;
	const struct request_stage *stage;        /* the next to run */
	uint8_t endpoint;                 /* where it came, or came again, last */
	uint8_t frame_sha256[32];         /* of the whole frame: the service knows it by that. The entry's is of what is signed */
	int64_t started_us, marked_us;
	int64_t came_us;                  /* by clock_boottime_us(), to be held against a server's clock */
	struct verified_request *verified;/* NULL: found in the journal at the start */
	const struct request_claims *claims;
	enum operation op;
	struct realm *realm;
	struct located *located;
	int64_t located_us;               /* when the reading began */
	int64_t rechecked_us;             /* when the look just before a write began, by clock_boottime_us(): this process, or its host, may stand still behind it */
	struct limits_turn turn;
	bool entered, waits_for_turn, has_turn, admitted;
	bool guesses, guessed_wrong;      /* has a place among the tries of this user; the password was wrong, or may have been */
	bool pending;                     /* a stage waits for a callback */
	struct secret_claims secret;
	enum status refusal;              /* policy.*, of the directory's answer */
	enum status write_status;         /* of a write whose answer was lost */
	bool intent, wrote, settling;
	bool unwritten_told;              /* that its outcome cannot be written */
	bool withheld;                    /* it has ended, and may not be told yet */
	int64_t settle_began_us;
	struct attempt attempts[ATTEMPTS];
	int asked;                        /* whose server is read */
	enum verdict verdicts[ATTEMPTS];  /* of the last reading */
	struct proving *proving;          /* the one bind is under way */
	struct replication_record told;   /* known: the one bind has told, before anything was written, that it does not do what is asked */
	bool proof_spent, proof_lost;     /* it was sent, or may have been; lost: that was before the agent's start, and once more is allowed */
	int in_doubt;                     /* the attempt that it is to decide */
	struct replication_record record; /* unicodePwd's, before the first write; after a crash it is in the entry alone */
	bool sought;                      /* looked for on the server that the user was written to last */
	bool undelivered;                 /* its channel was lost, and another agent may be asked */
	bool was_undelivered;             /* it has waited for that, or stood still and may not have heard of it: another one may have been asked meanwhile */
	bool judged;                      /* whether it was applied before has been looked at, and it was not, or nobody else can have done it */
	bool overtaken;                   /* the user's password was set between the intent and the write: another one may have done that */
	bool awaits_delivery, stale;      /* stale: to be read again */
	bool moved, moving;               /* its server was lost before anything was sent: another one, once */
	bool second_running, second_over; /* over: it was sent, or refused */
	int64_t server_time_s;            /* when that was read, by that server's clock */
	struct event timer;               /* its only one: it waits for one thing at a time. In here, since what has been written must have an end, memory or none */
	struct journal_entry entry;
	char why[256];                    /* the scope's rule in words: for the log, never for the service */
	struct result result;
};

/* The journal's number that former_exp comes from, and refused_exp is. */
#define REFUSED_EXP "refused_exp"
#define UNVERIFIED_A_SECOND 10
#define RECENT_WRITES 256
struct recent_write {
	char guid[UUID_SIZE];
	int64_t ended_us;
	char server[256];
	uint32_t version;                 /* of unicodePwd there since, at least; 0: unknown */
	int64_t time_s;                   /* by the server's clock, about */
};
struct requests {
	struct requests_world world;
	struct request *first;
	struct refusals *refusals;
	int64_t former_exp;               /* of the refusals that were told without being recorded before the last start: at or below it nothing is taken in */
	int64_t refused_exp, refused_exp_given; /* that number for the next start: on disk; on its way there, 0: nothing is */
	unsigned withheld;
	struct event *withholding;        /* pending while there are any */
	bool closing;
	int64_t channel_us;               /* the service has been able to deliver since then; 0: there was no channel yet */
	uint64_t counts[STATUS_COUNT];
	int64_t last_ms;
	/* Who was written to lately: a user read before that is read again, and on that server. */
	struct recent_write recent[RECENT_WRITES];
	unsigned recent_next;
	unsigned looks;                   /* under way after a write */
	int64_t started_s, lost_s;        /* lost_s: REQUESTS_LOST_S; 0: none was lost */
	double unverified_tokens;
	int64_t unverified_us;
	struct log_budget lines;          /* whoever owns the channel may bring a request as often as he likes */
};

/* Operations, as sets. */
enum {
	RESET = 1 << OP_RESET, CHANGE = 1 << OP_CHANGE, UNLOCK = 1 << OP_UNLOCK, CHECK = 1 << OP_CHECK, LOOKUP = 1 << OP_LOOKUP, VERIFY = 1 << OP_VERIFY, POLICY = 1 << OP_POLICY,
	ALL = (1 << OP_COUNT) - 1,
	WRITES = RESET | CHANGE | UNLOCK,
	TURNS = WRITES | CHECK,           /* one at a time for one user */
	NEW_PASSWORD = RESET | CHANGE | CHECK,
	OLD_PASSWORD = CHANGE | VERIFY,
};
static inline bool request_is(const struct request *request, unsigned operations) { return operations & 1u << request->op; }

const struct settings *request_settings(const struct request *request);
static inline bool request_sets_password(const struct request *request) { return request->op == OP_RESET || request->op == OP_CHANGE; }
struct request *request_new(struct requests *all);
void request_free(struct request *request);
/* Its place among those in flight, and its turn: the next one of this user may start from in here. */
void request_make_room(struct request *request);
/* Adds the time since the last mark to a stage's duration. */
void request_mark(struct request *request, enum stage stage);
void request_note_answer(struct request *request, const struct directory_answer *answer);
/* What is told is not of that answer. */
void request_forget_answer(struct request *request);
/* The user is known: into the entry. */
void request_note_user(struct request *request);
/* And may be spoken of: into the result. */
void request_tell_user(struct request *request);

/* A stage that waited has its answer: the next one, or the end. */
void request_resume(struct request *request, enum status status);
/* Of request->timer; what that waited for is forgotten. False: there is no memory. */
bool request_set_timer(struct request *request, int64_t ms, event_callback_fn callback);
/* Likewise behind a write: where there is no memory, the loop calls without a pause. */
void request_wake(struct request *request, int64_t ms, event_callback_fn callback);
void request_stop_timer(struct request *request);
/* The user is to be read again, and all that follows from it done anew, at the next request_resume. */
void request_go_back(struct request *request);
/* Said by a stage: there is nothing left to do. */
void request_skip_the_rest(struct request *request);

/* request_after.c. Whether the directory itself will hold the password against history and age. */
bool request_policy_enforced(const struct request *request);
/* The directory refused the password: why, by a policy that is read again where the one that is known does not explain it. Ends the request. */
void request_explain(struct request *request, enum status refusal);
/* The write was applied: `located` is read once more on its connection, and loudly logged if it is protected by now. Changes nothing of the outcome. */
void request_look_after(struct request *request, struct located *located);

/* Stages, in request_locate.c. */
enum status request_choose_directory(struct request *request);
enum status request_locate(struct request *request);
enum status request_locate_again(struct request *request);

/* In request_admit.c. */
enum status request_judge_scope(struct request *request);
enum status request_judge_state(struct request *request);
enum status request_take_turn(struct request *request);
enum status request_admit_write(struct request *request);
enum status request_decrypt(struct request *request);
enum status request_judge_password(struct request *request);
enum status request_answer_check(struct request *request);

/* In request_write.c. */
enum status request_leave_if_unlocked(struct request *request);
enum status request_record_intent(struct request *request);
enum status request_recheck(struct request *request);
enum status request_judge_again(struct request *request);      /* everything that is looked at once more just before a write: the same user, the time, scope and state */
enum status request_write(struct request *request);
/* What is to be written, judged by the account as read last. */
struct directory_change request_change(const struct request *request);

/* In request_delivery.c. Waits until the request is delivered again where its channel was lost and another agent may be asked; request.expired at its exp. */
enum status request_await_delivery(struct request *request);
/* Lets the loop turn once, so that the loss of a channel that is there to be read is known: a process that stood still wakes with everything at once. */
enum status request_hear_news(struct request *request);
/* directory_change's, of both writes; the argument is the request. request.expired at its exp; channel.closed where another agent may be asked and its channel was lost, or the look at the user is so old
 * that this may have happened unheard: the first write is for request_look_again then. No other call of the directory ends with either. */
enum status request_still_wanted(void *request);
/* A write was held back by that: the user is read again and all that follows from it done anew, behind request_await_delivery. */
enum status request_look_again(struct request *request);
/* The same bytes have come again. May free the request. */
void request_delivered_again(struct request *request, uint8_t endpoint);

/* In request_question.c. */
enum status request_admit_question(struct request *request);
enum status request_answer_lookup(struct request *request);
enum status request_answer_policy(struct request *request);
enum status request_admit_guess(struct request *request);
enum status request_verify_password(struct request *request);
/* The directory found the old password wrong, or may have: an answer that was lost, or that says nothing of it. */
bool request_was_wrong(enum status status, const struct directory_answer *answer);

/* The tail. */
void request_finish(struct request *request, enum status status);
/* Told, counted, logged and freed. */
void request_leave(struct request *request);
/* Provisional or unjournaled: sends what the result says now. */
void request_send_result(struct request *request);

/* request_withhold.c. A refusal that the journal holds no row of: remembered, and told once the same bytes cannot be taken in any more, whoever brings them and whatever ends the agent: once refused_exp is on disk, or at exp.
 * False where it cannot be remembered: it may not be told. */
bool request_withhold(struct request *request, const struct refusal *refusal) MUST_USE;
void requests_tell_withheld(evutil_socket_t fd, short what, void *requests);

/* A write that was sent and not answered. */
void request_settle(struct request *request, enum status status);
/* The second write has not been the end of it. */
void request_settle_on(struct request *request);
/* The request has ended where a reading shows one of its writes. */
bool request_settled_by(struct request *request, const struct located *located);
/* The record that a write was to replace is still there, not after a restart. */
bool request_record_is_unchanged(const struct request *request, const struct replication_record *record);

/* request_proof.c: the one bind that decides whose password stands in a record that was read: a simple bind as the user with the new password, on the server that the record was read from, at most
 * once for a request, on disk before it is sent where there is an intent. */
enum provable { PROOF_IMPOSSIBLE, PROOF_WANTS_SECRET, PROOF_POSSIBLE };
enum provable request_provable(const struct request *request, const struct located *located);
/* PROOF_WRONG says that the record in `located` is another's: it can be read, and was the same before and after. `guesses`: how often an hour such a bind may be wrong for this user, 0: as often as for a verify.
 * Takes `located`, and `done` gets it for its duration, where true; `done` fires later, but not while the agent ends. */
typedef void (*proof_done)(struct request *request, enum proof proof, struct located *located);
bool request_prove(struct request *request, struct located *take_located, unsigned guesses, proof_done done);
/* Of the same write, on whatever server. */
bool request_same_record(const struct replication_record *a, const struct replication_record *b);
/* A secret that nothing more can need is wiped. */
void request_drop_secret(struct request *request);
/* The frame of a request that was found in the journal has come again: its secret is taken out of it. */
void request_adopt(struct request *request, struct bytes payload, const struct gate_identity *gate);

/* request_earlier.c: a request that may have been applied before, by another agent or by this one before its journal was lost. */
enum status request_judge_earlier(struct request *request);
/* Of one that came behind its exp, and is not known: outcome.unknown where the journal of that time was lost. */
enum status request_judge_expired(struct request *request, const struct request_ids *ids);
/* Of whatever ends: outcome.unknown in the place of a refusal or a failure of what may have been applied before the journal was lost, where nobody has looked whether it was. */
enum status request_judge_end(struct request *request, enum status status);
/* A record that is known, and by its time may be of an earlier attempt of this operation. */
bool request_may_be_earlier(const struct request *request, const struct replication_record *record);
/* Behind the intent, of what was read last: where the password was set since and another agent may have been asked, the user is read again and all that follows from it is done anew, once; then it is
 * outcome.unknown. The channel does not tell: it may have ended at the service alone. */
enum status request_judge_overtaken(struct request *request);
/* The directory refused the password: true where that is held against what stands there first; then by request_explain, or the end. */
bool request_hold_refusal(struct request *request, enum status refusal);

/* request_recent.c. The request may have written to its user. */
void request_remember_write(struct request *request);
/* Likewise, at the start: a row of the journal. */
void request_restore_write(struct requests *all, const struct journal_entry *entry);
/* True where this user was written to since the reading began: what was read is stale, and settling would judge by it. */
bool request_written_since(const struct request *request);
/* The server that he was written on last, where the one at hand has not taken that over; else NULL. */
const char *request_server_ahead(const struct request *request);
/* directory.unavailable where a write on the server at hand would be replaced by what that other one holds. */
enum status request_judge_lineage(struct request *request);

/* request_second.c. True: it has begun, and ends by request_finish or request_settle_on. False: there is no other server, or it is not for a second write. */
bool request_second_begin(struct request *request);

/* request_settle.c. At the start: what the journal has as an intent or as settling goes on being settled. */
void requests_settle_journal(struct requests *requests);

#endif
