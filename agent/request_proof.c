/* The one bind that decides (architecture: nothing is told on a guess). A record of unicodePwd says when and where a password was set, never which: another's write through the same server within the same
 * seconds looks like ours. The password itself tells them apart, and only at the server whose record it is: elsewhere it may not have come yet, would count as a bad one, and could lock the account. */
#include <string.h>

#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/log.h"

struct proving {
	struct request *request;
	struct located *located;
	proof_done done;
	enum proof proof;
	int64_t wrong_before_ms;        /* entry.wrong_at_ms before this one */
	/* What the bind is about. */
	struct replication_record record;
	char *dn;
};

/* By a policy that is not known, where nothing is counted yet: only a threshold of 1 is reached by one wrong try then, and whoever sets that has his users locked by every slip of a finger. To write
 * twice because nobody could be asked would be worse. A count that cannot be read either (-1) may be anything. */
static bool is_far_from_lockout(const struct account *account)
{
	unsigned threshold = account->policy.lockout_threshold, safe = limits_safe_guesses(threshold);
	if (account->policy.source == POLICY_UNKNOWN || account->locked)
		return account->bad_passwords == 0 && !account->locked;
	return threshold == 0 || (threshold > 1 && (account->bad_passwords < 0 || (unsigned)account->bad_passwords + 1 <= safe));
}

enum provable request_provable(const struct request *request, const struct located *located)
{
	const struct account *account = located_account(located);
	if (request->proof_spent || !request_sets_password(request) || strcmp(account->guid, request->entry.user_guid) != 0 || !is_far_from_lockout(account))
		return PROOF_IMPOSSIBLE;
	return request->secret.new_password.size ? PROOF_POSSIBLE : PROOF_WANTS_SECRET;
}

void request_drop_secret(struct request *request)
{
	if (request->second_over && (request->proof_spent || !request_sets_password(request)))
		secret_claims_clear(&request->secret);
}

static void end(struct proving *proving)
{
	static const char *const words[] = { [PROOF_NOTHING] = "it says nothing", [PROOF_RIGHT] = "it is the user's", [PROOF_RIGHT_MUST_CHANGE] = "it is the user's, who must change it", [PROOF_WRONG] = "it is not the user's" };
	struct request *request = proving->request;
	request->proving = NULL;
	request_drop_secret(request);
	if (!request->all->closing) {
		if (request->proof_spent)
			log_event(LOG_NOTICE, "request.proof",
			          LOG_FIELDS({ LOG_OPERATION_ID, request->entry.operation_id }, { LOG_REQUEST_ID, request->entry.request_id }, { LOG_USER_GUID, request->entry.user_guid },
			                     { LOG_SERVER, located_position(proving->located)->server }),
			          "the new password was tried once, to know whose write the user's record shows: %s", words[proving->proof]);
		proving->done(request, proving->proof, proving->located);
	}
	located_free(proving->located);
	free(proving->dn);
	free(proving);
}

bool request_same_record(const struct replication_record *a, const struct replication_record *b)
{
	return a->known && b->known && a->version == b->version && a->originating_usn == b->originating_usn && memcmp(a->originator, b->originator, 16) == 0;
}

/* Somebody may have written, or renamed the user, between the reading and the bind: then it was about something else. Of a record that cannot be read, or is young, that cannot be seen. */
static void handle_same(enum status status, const struct directory_answer *answer, void *arg)
{
	struct proving *proving = arg;
	bool same = status == STATUS_OK && !proving->record.young && request_same_record(&proving->record, located_password_record(proving->located)) && strcmp(proving->dn, located_account(proving->located)->dn) == 0;
	proving->proof = same ? PROOF_WRONG : PROOF_NOTHING;
	end(proving);
}

/* MS-ADTS: 532 and 773 come with the right password alone. What is said of disabled and expired accounts, hours and workstations is not certain to; a lockout says nothing; 525 is about the name. */
static enum proof judge(enum status status, const struct directory_answer *answer)
{
	enum { NO_SUCH_USER = 0x525 };
	switch (status) {
	case STATUS_VERIFIED:
	case STATUS_CREDENTIAL_EXPIRED:
		return PROOF_RIGHT;
	case STATUS_CREDENTIAL_MUST_CHANGE:
		return PROOF_RIGHT_MUST_CHANGE;
	case STATUS_CREDENTIAL_WRONG:
		return answer->win32 == NO_SUCH_USER ? PROOF_NOTHING : PROOF_WRONG;
	default:
		return PROOF_NOTHING;
	}
}

static void handle_tried(enum status status, const struct directory_answer *answer, void *arg)
{
	struct proving *proving = arg;
	struct request *request = proving->request;
	struct directory_call *call;
	bool wrong = request_was_wrong(status, answer);
	limits_settle_guess(request->all->world.limits, request->entry.user_guid, wrong, clock_now_ms());
	request->entry.wrong_at_ms = wrong ? clock_now_ms() : proving->wrong_before_ms;
	/* What never left was no try. */
	request->proof_spent = !answer || answer->tried;
	proving->proof = judge(status, answer);
	if (proving->proof == PROOF_WRONG) {
		proving->proof = PROOF_NOTHING;
		if (directory_recheck(proving->located, realm_settings(request->realm)->locate_timeout_ms, handle_same, proving, &call) == STATUS_OK)
			return;
	}
	end(proving);
}

static enum status try(struct proving *proving)
{
	struct request *request = proving->request;
	struct directory_call *call;
	return directory_verify(proving->located, secret_bytes(&request->secret.new_password), realm_settings(request->realm)->write_timeout_ms, handle_tried, proving, &call);
}

static void give_up(struct proving *proving)
{
	struct request *request = proving->request;
	limits_settle_guess(request->all->world.limits, request->entry.user_guid, false, clock_now_ms());
	request->entry.wrong_at_ms = proving->wrong_before_ms;
	request->proving = NULL;
}

static void handle_marked(enum status status, void *arg)
{
	struct proving *proving = arg;
	if (status == STATUS_OK && !proving->request->all->closing && try(proving) == STATUS_OK)
		return;
	/* The row does not say so: a later try has to mark it first. */
	if (status != STATUS_OK)
		proving->request->entry.state = JOURNAL_INTENT;
	give_up(proving);
	end(proving);
}

/* Behind an intent the row says so: after a crash that took its answer there is one more, and never a third. */
static enum journal_state marked_state(const struct request *request)
{
	return request->proof_lost ? JOURNAL_SETTLING_AGAIN : JOURNAL_SETTLING;
}

static enum status mark(struct proving *proving)
{
	struct request *request = proving->request;
	enum journal_state before = request->entry.state;
	request->entry.state = marked_state(request);
	request->entry.wrong_at_ms = clock_now_ms(); /* if the agent ends behind it, it may have been */
	enum status status = journal_outcome(request->all->world.journal, &request->entry, handle_marked, proving);
	if (status != STATUS_OK)
		request->entry.state = before;
	return status;
}

bool request_prove(struct request *request, struct located *take_located, unsigned guesses, proof_done done)
{
	int64_t retry_after_s;
	const struct account *account = located_account(take_located);
	struct limits *limits = request->all->world.limits;
	if (request->proving || request_provable(request, take_located) != PROOF_POSSIBLE)
		return false;
	struct proving *proving = malloc(sizeof *proving);
	char *dn = strdup(account->dn);
	if (proving && dn && limits_admit_proof(limits, request->entry.user_guid, account->policy.lockout_threshold, guesses, clock_now_ms(), &retry_after_s) == STATUS_OK) {
		*proving = (struct proving){ request, take_located, done, PROOF_NOTHING, request->entry.wrong_at_ms, *located_password_record(take_located), dn };
		request->proving = proving;
		if ((request->intent && request->entry.state != marked_state(request) ? mark : try)(proving) == STATUS_OK)
			return true;
		give_up(proving);
	}
	free(dn);
	free(proving);
	return false;
}

void request_adopt(struct request *request, struct bytes payload, const struct gate_identity *gate)
{
	struct verified_request *verified = NULL;
	struct request_ids ids;
	const char *reason;
	struct gate_identity then = *gate;
	if (request->verified || !request->settling || request->proof_spent || request->secret.new_password.size || !request_sets_password(request))
		return;
	/* The same bytes as then, and judged by the clock of then: nothing is written for them any more. */
	then.not_before = 0;
	enum status status = gate_verify(payload, &then, request->entry.intent_at_ms / 1000, &verified, &ids, &reason);
	if (status == STATUS_OK) {
		request->claims = verified_claims(verified);
		status = request_decrypt(request);
		request->claims = NULL;
		verified_free(verified);
	}
	request->second_over = true;
	if (status != STATUS_OK) {
		secret_claims_clear(&request->secret);
		free(request->result.reason);
		request->result.reason = NULL;
		if (log_allowed(&request->all->lines))
			log_event(LOG_WARNING, "request.adopt", LOG_FIELDS({ LOG_REQUEST_ID, request->entry.request_id }, { LOG_CODE, status_code(status) }),
			          "a request that is being settled was delivered again, and its password cannot be read any more: settling does without");
		return;
	}
	secret_wipe(&request->secret.old_password);
	if (event_initialized(&request->timer) && event_pending(&request->timer, EV_TIMEOUT, NULL))
		event_add(&request->timer, &(struct timeval){ 0, 0 });
}
