/* The names that a directory goes by, learned from itself: for those that are configured without `domains`, beside others. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/internal.h"
#include "base/clock.h"

enum { LEARN_AGAIN_US = 600000000 };

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->count; i++) {
		free(names->items[i]);
	}
	names->count = 0;
}

static void add_name(const char *name, void *arg)
{
	struct names *names = arg;
	if (names->count < NAMES_MAX && (names->items[names->count] = strdup(name)) != NULL) {
		names->count++;
	}
}

/* What could not be read leaves what was known before. */
static void on_names(const struct reply *reply, void *arg)
{
	struct directory *directory = arg;
	struct names *names = &directory->names;
	names->asking = false;
	if (directory->closing || reply->status != STATUS_OK || reply->ldap_result != LDAP_SUCCESS) {
		return;
	}
	names_free(names);
	for (size_t i = 0; i < reply->count; i++) {
		directory->flavor->read_names(reply->ldap, reply->entries[i], add_name, names);
	}
	names->known = true;
	names->learned_us = clock_monotonic_us();
	event_active(directory->news, 0, 0);
}

void names_learn(struct directory *directory, struct connection *connection)
{
	const char *const *domains = directory->settings->domains;
	struct names *names = &directory->names;
	struct ldap_search search;
	if ((domains != NULL && domains[0] != NULL) || names->asking || connection->state != CONNECTION_READY || (names->known && clock_monotonic_us() - names->learned_us < LEARN_AGAIN_US)) {
		return;
	}
	if (directory->flavor->find_names == NULL) {
		names->known = true;
		return;
	}
	if (directory->flavor->find_names(&connection->root, &search) == STATUS_OK) {
		names->asking = operation_search(connection, &search, directory->settings->connect_timeout_ms, on_names, directory, NULL) == STATUS_OK;
	}
}

void names_clear(struct directory *directory)
{
	names_free(&directory->names);
}

static bool is_among(const char *const *names, const char *domain)
{
	for (size_t i = 0; names[i] != NULL; i++) {
		if (strcasecmp(names[i], domain) == 0) {
			return true;
		}
	}
	return false;
}

enum directory_claim directory_claims(const struct directory *directory, const char *domain)
{
	const char *const *domains = directory->settings->domains;
	if (domains != NULL && domains[0] != NULL) {
		return is_among(domains, domain) ? CLAIM_CONFIGURED : CLAIM_NONE;
	}
	for (size_t i = 0; i < directory->names.count; i++) {
		if (strcasecmp(directory->names.items[i], domain) == 0) {
			return CLAIM_LEARNED;
		}
	}
	return directory->names.known ? CLAIM_OPEN : CLAIM_UNKNOWN;
}

bool directory_serves(const struct directory *directory, const char *domain)
{
	return directory_claims(directory, domain) != CLAIM_NONE;
}
