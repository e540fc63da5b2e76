#include "agent/request_answer.h"

#include <stdlib.h>
#include <string.h>

static char *copy_text(const char *text, bool *complete)
{
	char *copy = text && *text ? strdup(text) : NULL;
	*complete = *complete && (copy || !text || !*text);
	return copy;
}

static int64_t known_time(int64_t seconds)
{
	/* A later one is never, and a receiver would refuse the whole result for it. */
	return seconds > 0 && seconds <= RESULT_TIME_MAX ? seconds : 0;
}

struct result_account *answer_account(const struct account *account, int64_t now_s)
{
	struct result_account *answer = calloc(1, sizeof *answer);
	bool never_expires = account->uac & UAC_DONT_EXPIRE_PASSWORD, complete = true;
	if (!answer)
		return NULL;
	*answer = (struct result_account){
		.user_principal_name = copy_text(account->user_principal_name, &complete), .sam_account_name = copy_text(account->sam_account_name, &complete),
		.uid = copy_text(account->uid, &complete), .display_name = copy_text(account->display_name, &complete),
		.locked = account->locked, .disabled = account->uac & UAC_ACCOUNTDISABLE, .expired = account->account_expires_s <= now_s,
		/* pwdLastSet 0 has no effect on a password that never expires. */
		.must_change = !account->pwd_last_set_s && !never_expires, .password_never_expires = never_expires, .cannot_change = account->cannot_change,
		.password_last_set = known_time(account->pwd_last_set_s), .password_expires_at = known_time(account->password_expires_s),
	};
	if (complete)
		return answer;
	free(answer->user_principal_name);
	free(answer->sam_account_name);
	free(answer->uid);
	free(answer->display_name);
	free(answer);
	return NULL;
}

/* 0: at once. pwdLastSet 0: must change at the next logon, so no age holds it back. */
static int64_t possible_at(const struct account *account, int64_t now_s)
{
	int64_t at;
	if (!account->policy.min_age_s || !account->pwd_last_set_s)
		return 0;
	if (__builtin_add_overflow(account->pwd_last_set_s, account->policy.min_age_s, &at) || at > RESULT_TIME_MAX)
		return RESULT_TIME_MAX;
	return at > now_s ? at : 0;
}

struct result_policy *answer_rules(const struct account *account, bool enforced, int64_t now_s)
{
	static const enum result_policy_source sources[] = {
		[POLICY_UNKNOWN] = RESULT_POLICY_UNKNOWN, [POLICY_DOMAIN] = RESULT_POLICY_DOMAIN, [POLICY_PSO] = RESULT_POLICY_PSO, [POLICY_SUBENTRY] = RESULT_POLICY_SUBENTRY,
	};
	const struct password_policy *policy = &account->policy;
	struct result_policy *answer = calloc(1, sizeof *answer);
	if (answer && policy->source != POLICY_UNKNOWN)
		*answer = (struct result_policy){
			.source = sources[policy->source], .min_length = policy->min_length, .complexity = policy->complexity, .history = policy->history,
			.min_age = policy->min_age_s, .max_age = policy->max_age_s, .lockout_threshold = policy->lockout_threshold, .lockout_duration = policy->lockout_duration_s,
			.possible_at = possible_at(account, now_s), .enforced = enforced,
		};
	return answer;
}
