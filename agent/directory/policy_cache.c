#include "agent/directory/policy_cache.h"

#include <string.h>
#include <strings.h>

/* With a name of its own. */
static void copy(const struct password_policy *from, struct password_policy *ret_policy)
{
	*ret_policy = *from;
	ret_policy->source_name = from->source_name != NULL ? strdup(from->source_name) : NULL;
}

static struct policy_cache_row *find_row(const struct policy_cache *cache, const char *dn)
{
	for (size_t i = 0; i < POLICY_CACHE_MAX; i++) {
		if (cache->rows[i].dn != NULL && strcasecmp(cache->rows[i].dn, dn) == 0) {
			return (struct policy_cache_row *)&cache->rows[i];
		}
	}
	return NULL;
}

static void clear_row(struct policy_cache_row *row)
{
	free(row->dn);
	free(row->policy.source_name);
	*row = (struct policy_cache_row){ 0 };
}

bool policy_cache_get(const struct policy_cache *cache, const char *dn, int64_t now_us, int64_t max_age_us, struct password_policy *ret_policy)
{
	const struct policy_cache_row *row = find_row(cache, dn);
	if (row == NULL || now_us - row->read_us > max_age_us) {
		return false;
	}
	copy(&row->policy, ret_policy);
	return true;
}

/* A free row, else the oldest. */
static struct policy_cache_row *replaceable_row(struct policy_cache *cache)
{
	struct policy_cache_row *oldest = &cache->rows[0];
	for (size_t i = 0; i < POLICY_CACHE_MAX; i++) {
		if (cache->rows[i].dn == NULL) {
			return &cache->rows[i];
		}
		if (cache->rows[i].read_us < oldest->read_us) {
			oldest = &cache->rows[i];
		}
	}
	return oldest;
}

void policy_cache_put(struct policy_cache *cache, const char *dn, int64_t now_us, const struct password_policy *policy)
{
	struct policy_cache_row *row = find_row(cache, dn);
	if (row == NULL) {
		row = replaceable_row(cache);
	}
	clear_row(row);
	row->dn = strdup(dn);
	row->read_us = now_us;
	copy(policy, &row->policy);
}

void policy_cache_clear(struct policy_cache *cache)
{
	for (size_t i = 0; i < POLICY_CACHE_MAX; i++) {
		clear_row(&cache->rows[i]);
	}
}
