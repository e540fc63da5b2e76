/* policy_cache: password policies by their entry's DN, as read not long ago. Bounded; the oldest goes first. */
#ifndef AGENT_DIRECTORY_POLICY_CACHE_H
#define AGENT_DIRECTORY_POLICY_CACHE_H

#include "agent/account.h"

enum { POLICY_CACHE_MAX = 64 };
struct policy_cache {
	struct policy_cache_row {
		char *dn;
		struct password_policy policy;
		int64_t read_us;
	} rows[POLICY_CACHE_MAX];
};

/* A copy with a name of its own; false where it is not there or older than max_age_us. */
bool policy_cache_get(const struct policy_cache *cache, const char *dn, int64_t now_us, int64_t max_age_us, struct password_policy *ret_policy);
void policy_cache_put(struct policy_cache *cache, const char *dn, int64_t now_us, const struct password_policy *policy);
void policy_cache_clear(struct policy_cache *cache);

#endif
