/* Refusals that the journal holds no row of. "Nothing was changed" is told only where it stays true: whoever owns the channel may keep the bytes, and bring them again as soon as the agent has ended and forgotten.
 * Two things keep it true. What is at or below the number REFUSED_EXP on disk is not taken in by the next start; one number does for all that wait, so that each is told one commit later. And what has expired is refused by time
 * alone: where the disk takes nothing, a refusal is told at its exp. */
#include "agent/request_internal.h"
#include "base/clock.h"

#define LOOK_S 1
#define WITHHELD_MAX 4096

static bool may_be_told(const struct request *request)
{
	return request->entry.exp <= request->all->refused_exp || request->entry.exp <= clock_now_ms() / 1000;
}

static void handle_given(enum status status, void *arg);

static void give_number(struct requests *requests)
{
	/* Never less than it was: what was told by time alone must not come in by a clock that is set back. */
	int64_t exp = journal_number(requests->world.journal, REFUSED_EXP, 0);
	for (const struct request *request = requests->first; request; request = request->next)
		if (request->withheld && request->entry.exp > exp)
			exp = request->entry.exp;
	if (!requests->refused_exp_given && exp > requests->refused_exp && journal_store_number(requests->world.journal, REFUSED_EXP, exp, handle_given, requests) == STATUS_OK)
		requests->refused_exp_given = exp;
}

static void tell(struct requests *requests)
{
	for (struct request *request = requests->first, *next; request; request = next) {
		next = request->next;
		if (request->withheld && may_be_told(request))
			request_leave(request);
	}
	if (!requests->withheld)
		event_del(requests->withholding);
}

static void handle_given(enum status status, void *arg)
{
	struct requests *requests = arg;
	if (status == STATUS_OK)
		requests->refused_exp = requests->refused_exp_given;
	requests->refused_exp_given = 0;
	if (requests->closing || status != STATUS_OK)
		return;
	tell(requests);
	give_number(requests); /* for those that came meanwhile */
}

void requests_tell_withheld(evutil_socket_t fd, short what, void *arg)
{
	struct requests *requests = arg;
	if (requests->closing)
		return;
	tell(requests);
	if (journal_writable(requests->world.journal))
		give_number(requests);
}

bool request_withhold(struct request *request, const struct refusal *refusal)
{
	struct requests *requests = request->all;
	bool looked_for = event_pending(requests->withholding, EV_TIMEOUT, NULL) || event_add(requests->withholding, &(struct timeval){ LOOK_S, 0 }) == 0;
	if (!looked_for || requests->withheld >= WITHHELD_MAX || !refusals_add(requests->refusals, refusal, clock_now_ms() / 1000))
		return false;
	request->withheld = true;
	requests->withheld++;
	verified_free(request->verified);
	request->verified = NULL;
	request->claims = NULL;
	give_number(requests);
	if (may_be_told(request))
		request_leave(request);
	else
		request_make_room(request);
	return true;
}
