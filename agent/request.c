#include "agent/request.h"

#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"

#define REFUSALS_MAX 16384

/* Each stage does its part or says why not. One that waits sets request->pending; its callback comes back by request_resume(). */
struct request_stage {
	const char *name;
	enum status (*run)(struct request *request);
	unsigned operations;              /* whose stage it is */
};

/* The order. Before it: the signature (session.c), the known id and the claims (requests_handle); behind it, for every one: request_finish. */
static const struct request_stage stages[] = {
	{ "directory", request_choose_directory, ALL },
	{ "questions", request_admit_question, LOOKUP | POLICY },
	{ "locate", request_locate, ALL },
	{ "scope", request_judge_scope, ALL },
	{ "account", request_answer_lookup, LOOKUP },
	{ "policy", request_answer_policy, POLICY },
	{ "state", request_judge_state, TURNS },
	{ "turn", request_take_turn, TURNS },
	{ "locate again", request_locate_again, TURNS },
	{ "scope", request_judge_scope, TURNS },
	{ "state", request_judge_state, TURNS },
	{ "lineage", request_judge_lineage, WRITES },
	{ "admit", request_admit_write, WRITES },
	{ "decrypt", request_decrypt, NEW_PASSWORD | OLD_PASSWORD },
	{ "earlier", request_judge_earlier, RESET | CHANGE },
	{ "rules", request_judge_password, NEW_PASSWORD },
	{ "check", request_answer_check, CHECK },
	{ "guess", request_admit_guess, OLD_PASSWORD },
	{ "verify", request_verify_password, VERIFY },
	{ "unlocked", request_leave_if_unlocked, UNLOCK },
	{ "delivery", request_await_delivery, WRITES },
	{ "intent", request_record_intent, WRITES },
	{ "recheck", request_recheck, WRITES },
	{ "judge again", request_judge_again, WRITES },
	{ "overtaken", request_judge_overtaken, RESET | CHANGE },
	{ "news", request_hear_news, WRITES },
	{ "delivery", request_await_delivery, WRITES },
	{ "write", request_write, WRITES },
	{ NULL, NULL, 0 },
};

void request_go_back(struct request *request)
{
	/* Nobody has compared the old password yet, and the one bind may be in want of the place. */
	if (request->guesses)
		limits_settle_guess(request->all->world.limits, request->entry.user_guid, false, clock_now_ms());
	request->guesses = false;
	for (request->stage = stages; request->stage->run != request_locate_again; request->stage++)
		continue;
}

/* The server was lost behind the intent and nothing had been sent to it: the user is read on another one, and the intent is written anew for that. Once. */
static bool move_on(struct request *request, enum status status)
{
	bool lost = status == STATUS_DIRECTORY_UNAVAILABLE || status == STATUS_DIRECTORY_TIMEOUT;
	/* An old password that may have been compared is not tried again: that could be two failed logons for one guess. */
	if (!lost || !request->intent || request->wrote || request->guessed_wrong || request->moved || request->all->closing || verified_still_valid(request->verified, clock_now_ms() / 1000) != STATUS_OK)
		return false;
	request->moved = request->moving = true;
	request_go_back(request);
	return true;
}

void request_skip_the_rest(struct request *request)
{
	request->stage = &stages[sizeof stages / sizeof stages[0] - 1];
}

static void advance(struct request *request)
{
	while (request->stage->run) {
		const struct request_stage *stage = request->stage++;
		if (!request_is(request, stage->operations))
			continue;
		request->pending = false;
		enum status status = stage->run(request);
		/* Where it cannot even be begun no callback comes: nothing is pending. */
		if (status == STATUS_OK && request->pending)
			return;
		if (status != STATUS_OK && !move_on(request, status)) {
			request_finish(request, status);
			return;
		}
	}
	request_finish(request, STATUS_OK);
}

void request_resume(struct request *request, enum status status)
{
	if (status == STATUS_OK || move_on(request, status))
		advance(request);
	else
		request_finish(request, status);
}

/* What a request is made of ----------------------------------------------------------------------------------------------------------- */

const struct settings *request_settings(const struct request *request)
{
	return *request->all->world.settings;
}

struct request *request_new(struct requests *all)
{
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->all = all;
	request->stage = stages;
	request->started_us = request->marked_us = clock_monotonic_us();
	result_init(&request->result);
	request->result.agent_id = strdup(all->world.identity->agent_id);
	request->result.issuer = strdup(all->world.identity->issuer ? all->world.identity->issuer : "");
	request->next = all->first;
	if (all->first)
		all->first->previous = request;
	all->first = request;
	return request;
}

void request_make_room(struct request *request)
{
	struct limits *limits = request->all->world.limits;
	bool had_turn = request->has_turn || request->waits_for_turn;
	if (request->entered)
		limits_leave(limits);
	request->entered = request->has_turn = request->waits_for_turn = false;
	if (had_turn)
		limits_end_turn(limits, &request->turn);
}

void request_free(struct request *request)
{
	struct requests *all = request->all;
	if (request->previous)
		request->previous->next = request->next;
	else
		all->first = request->next;
	if (request->next)
		request->next->previous = request->previous;
	if (request->wrote)
		request_remember_write(request);
	secret_claims_clear(&request->secret);
	located_free(request->located);
	for (int i = 0; i < ATTEMPTS; i++)
		located_free(request->attempts[i].sent_over);
	verified_free(request->verified);
	result_clear(&request->result);
	free(request->entry.result);
	request_stop_timer(request);
	all->withheld -= request->withheld;
	request_make_room(request); /* last: others start from in here */
	free(request);
}

void request_stop_timer(struct request *request)
{
	if (event_initialized(&request->timer))
		event_del(&request->timer);
}

bool request_set_timer(struct request *request, int64_t ms, event_callback_fn callback)
{
	request_stop_timer(request);
	event_assign(&request->timer, request->all->world.base, -1, 0, callback, request);
	return event_add(&request->timer, &(struct timeval){ ms / 1000, ms % 1000 * 1000 }) == 0;
}

void request_wake(struct request *request, int64_t ms, event_callback_fn callback)
{
	if (!request_set_timer(request, ms, callback))
		event_active(&request->timer, EV_TIMEOUT, 1);
}

void request_mark(struct request *request, enum stage stage)
{
	int64_t now = clock_monotonic_us();
	int64_t *duration = &request->result.duration_us[stage];
	*duration = (*duration < 0 ? 0 : *duration) + now - request->marked_us;
	request->marked_us = now;
}

static void replace_text(char **text, const char *with)
{
	free(*text);
	*text = with && *with ? strdup(with) : NULL;
}

void request_note_answer(struct request *request, const struct directory_answer *answer)
{
	if (!answer)
		return;
	request->result.ldap_result = answer->ldap_result;
	replace_text(&request->result.diagnostic, answer->diagnostic);
	if (answer->server[0])
		replace_text(&request->result.server, answer->server);
}

void request_forget_answer(struct request *request)
{
	request->result.ldap_result = -1;
	replace_text(&request->result.diagnostic, NULL);
}

void request_note_user(struct request *request)
{
	strcpy(request->entry.user_guid, located_account(request->located)->guid);
	replace_text(&request->result.server, located_position(request->located)->server);
}

void request_tell_user(struct request *request)
{
	const struct account *account = located_account(request->located);
	strcpy(request->result.user_guid, account->guid);
	request->result.user_is_entry = account->is_entry;
	if (request->op == OP_RESET || request->op == OP_UNLOCK)
		request->result.was_locked = account->locked;
}

/* All of them ------------------------------------------------------------------------------------------------------------------------- */

struct requests *requests_new(const struct requests_world *world)
{
	struct requests *requests = calloc(1, sizeof *requests);
	if (!requests)
		return NULL;
	requests->refusals = refusals_new(REFUSALS_MAX);
	requests->withholding = event_new(world->base, -1, EV_PERSIST, requests_tell_withheld, requests);
	if (!requests->refusals || !requests->withholding) {
		requests_free(requests);
		return NULL;
	}
	requests->world = *world;
	requests->started_s = clock_now_ms() / 1000;
	requests->unverified_us = clock_monotonic_us();
	requests->unverified_tokens = UNVERIFIED_A_SECOND;
	return requests;
}

void requests_close(struct requests *requests)
{
	requests->closing = true;
}

void requests_free(struct requests *requests)
{
	if (!requests)
		return;
	requests->closing = true;
	/* Waiting ones first, so that no turn is granted to them by the end of another. */
	for (struct request *request = requests->first, *next; request; request = next) {
		next = request->next;
		if (request->waits_for_turn)
			request_free(request);
	}
	while (requests->first)
		request_free(requests->first);
	refusals_free(requests->refusals);
	if (requests->withholding)
		event_free(requests->withholding);
	free(requests);
}

/* The rows of before the journal's version 4 have no time of their own for it. */
static int64_t wrong_at_ms(const struct journal_entry *entry)
{
	bool ended_wrong = entry->state == JOURNAL_OUTCOME && strcmp(entry->code, status_code(STATUS_CREDENTIAL_WRONG)) == 0;
	return !entry->wrong_at_ms && ended_wrong ? entry->outcome_at_ms : entry->wrong_at_ms;
}

static bool count_write(const struct journal_entry *entry, void *arg)
{
	struct requests *requests = arg;
	/* A time that lies ahead is a clock's fault, and lets nothing off. */
	int64_t resumed_ms = journal_number(requests->world.journal, REQUESTS_RESUMED_MS, 0);
	bool was_resumed = resumed_ms <= clock_now_ms(), before = was_resumed && entry->outcome_at_ms <= resumed_ms;
	int64_t wrong_ms = wrong_at_ms(entry);
	if (wrong_ms)
		limits_restore_guess(requests->world.limits, entry->user_guid, !was_resumed || wrong_ms > resumed_ms, wrong_ms);
	if (entry->state == JOURNAL_OUTCOME)
		request_restore_write(requests, entry);
	if (entry->counts && entry->state == JOURNAL_OUTCOME && !before)
		limits_restore(requests->world.limits, entry->user_guid, entry->sets_password, entry->outcome_at_ms);
	return true;
}

void requests_restore(struct requests *requests)
{
	requests->former_exp = requests->refused_exp = journal_number(requests->world.journal, REFUSED_EXP, 0);
	requests->lost_s = journal_number(requests->world.journal, REQUESTS_LOST_S, 0);
	journal_each(requests->world.journal, count_write, requests);
	requests_settle_journal(requests);
}

unsigned requests_settling(const struct requests *requests)
{
	unsigned count = 0;
	for (const struct request *request = requests->first; request; request = request->next)
		count += request->settling;
	return count;
}

unsigned requests_running(const struct requests *requests)
{
	unsigned count = 0;
	for (const struct request *request = requests->first; request; request = request->next)
		count += !request->settling && !request->withheld;
	return count;
}

uint64_t requests_count(const struct requests *requests, enum status code) { return requests->counts[code]; }
int64_t requests_last_ms(const struct requests *requests) { return requests->last_ms; }
