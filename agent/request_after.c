/* What follows the directory's answer to a write: a refusal is diagnosed, an applied write is looked at once more. */
#include <string.h>

#include "agent/gate/policy.h"
#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/log.h"

#define LOOKS_MAX 1024

/* Refused ----------------------------------------------------------------------------------------------------------------------------- */

/* A change is subject to them by itself, a reset where the server is asked for that. */
bool request_policy_enforced(const struct request *request)
{
	return request->op == OP_CHANGE || (request->claims->enforce_policy && located_policy_control(request->located));
}

/* The rule that the directory named: by a code of its own, or in words. */
static enum status rule_named(const struct request *request)
{
	return request->refusal == STATUS_POLICY_REJECTED ? policy_hint(request->result.diagnostic) : request->refusal;
}

static enum status diagnose(struct request *request)
{
	const struct account *account = located_account(request->located);
	struct result *result = &request->result;
	result->rule_count = 0;
	return policy_diagnose(&account->policy, account, secret_bytes(&request->secret.new_password), request_policy_enforced(request), rule_named(request), clock_now_ms() / 1000,
	                       result->rules, &result->rule_count);
}

static void handle_fresh(enum status status, const struct directory_answer *answer, void *arg)
{
	struct request *request = arg;
	/* Where it could not be read again the one that was known has to do. */
	request_resume(request, diagnose(request));
}

void request_explain(struct request *request, enum status refusal)
{
	const struct account *account = located_account(request->located);
	struct directory_call *call;
	request->refusal = refusal;
	if (!policy_explains(&account->policy, account, secret_bytes(&request->secret.new_password), request_policy_enforced(request), rule_named(request), clock_now_ms() / 1000)) {
		directory_forget_policies(realm_directory(request->realm));
		if (directory_recheck(request->located, realm_settings(request->realm)->locate_timeout_ms, handle_fresh, request, &call) == STATUS_OK)
			return;
	}
	request_resume(request, diagnose(request));
}

/* Applied ----------------------------------------------------------------------------------------------------------------------------- */

/* One more look at a user who was written to. The result does not wait for it. */
struct look {
	struct requests *all;
	struct realm *realm;
	struct located *located;
	char request_id[UUID_SIZE], operation_id[UUID_SIZE];
};

static void tell(const struct look *look, int level, const char *event, const char *text, const char *why)
{
	log_event(level, event, LOG_FIELDS({ LOG_OPERATION_ID, look->operation_id }, { LOG_REQUEST_ID, look->request_id }, { LOG_USER_GUID, located_account(look->located)->guid },
	                                   { LOG_SERVER, located_position(look->located)->server }, { "reason", why }),
	          "%s: %s", text, why);
}

static void judge(const struct look *look)
{
	char why[256];
	if (scope_judge(realm_scope(look->realm), located_account(look->located), why, sizeof why) == STATUS_USER_PROTECTED)
		tell(look, LOG_CRIT, "request.protected_after", "an account that was written to became a protected one meanwhile: look at who made it one, and give it another password", why);
}

static void handle_look(enum status status, const struct directory_answer *answer, void *arg)
{
	struct look *look = arg;
	look->all->looks--;
	if (!look->all->closing && status == STATUS_OK)
		judge(look);
	else if (!look->all->closing)
		tell(look, LOG_WARNING, "request.unseen_after", "an account could not be read once more after it was written to", status_code(status));
	located_free(look->located);
	free(look);
}

void request_look_after(struct request *request, struct located *located)
{
	struct requests *all = request->all;
	struct directory_call *call;
	struct look *look = malloc(sizeof *look);
	if (!look)
		return;
	*look = (struct look){ all, request->realm, located_ref(located) };
	strcpy(look->request_id, request->entry.request_id);
	strcpy(look->operation_id, request->entry.operation_id);
	enum status status = all->looks < LOOKS_MAX ? directory_recheck(located, realm_settings(request->realm)->locate_timeout_ms, handle_look, look, &call) : STATUS_AGENT_OVERLOADED;
	all->looks++;
	if (status != STATUS_OK)
		handle_look(status, NULL, look);
}
