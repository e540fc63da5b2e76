#include "agent/refusals.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

struct node {
	struct node *next_in_bucket, *after;
	struct refusal refusal;
};

struct refusals {
	unsigned limit, count;
	struct node *buckets[BUCKETS];
	struct node *first, **end;   /* in order of arrival */
	int64_t swept_s, passed_exp;
};

static struct node **find_slot(const struct refusals *refusals, const char *request_id)
{
	uint32_t hash = 2166136261u;
	for (const char *at = request_id; *at; at++)
		hash = (hash ^ (uint8_t)*at) * 16777619u;
	struct node **slot = (struct node **)&refusals->buckets[hash % BUCKETS];
	while (*slot && strcmp((*slot)->refusal.request_id, request_id) != 0)
		slot = &(*slot)->next_in_bucket;
	return slot;
}

static void note_passed(struct refusals *refusals, int64_t exp)
{
	if (exp > refusals->passed_exp)
		refusals->passed_exp = exp;
}

/* Their ends lie in no order; once a second is enough. */
static void sweep(struct refusals *refusals, int64_t now_s)
{
	if (refusals->swept_s == now_s)
		return;
	refusals->swept_s = now_s;
	struct node **at = &refusals->first;
	while (*at) {
		struct node *node = *at;
		if (node->refusal.exp > now_s) {
			at = &node->after;
			continue;
		}
		note_passed(refusals, node->refusal.exp);
		*find_slot(refusals, node->refusal.request_id) = node->next_in_bucket;
		*at = node->after;
		refusals->count--;
		free(node);
	}
	refusals->end = at;
}

struct refusals *refusals_new(unsigned limit)
{
	struct refusals *refusals = calloc(1, sizeof *refusals);
	if (!refusals)
		return NULL;
	refusals->limit = limit;
	refusals->end = &refusals->first;
	return refusals;
}

void refusals_free(struct refusals *refusals)
{
	if (!refusals)
		return;
	for (struct node *node = refusals->first, *after; node; node = after) {
		after = node->after;
		free(node);
	}
	free(refusals);
}

bool refusals_add(struct refusals *refusals, const struct refusal *refusal, int64_t now_s)
{
	if (refusal->exp <= now_s) { /* time refuses it already */
		note_passed(refusals, refusal->exp);
		return true;
	}
	sweep(refusals, now_s);
	struct node **slot = find_slot(refusals, refusal->request_id);
	if (*slot) {
		(*slot)->refusal = *refusal;
		return true;
	}
	struct node *node = refusals->count < refusals->limit ? calloc(1, sizeof *node) : NULL;
	if (!node)
		return false;
	node->refusal = *refusal;
	*slot = node;
	*refusals->end = node;
	refusals->end = &node->after;
	refusals->count++;
	return true;
}

const struct refusal *refusals_find(const struct refusals *refusals, const char *request_id)
{
	const struct node *node = *find_slot(refusals, request_id);
	return node ? &node->refusal : NULL;
}

int64_t refusals_passed_exp(const struct refusals *refusals)
{
	return refusals->passed_exp;
}
