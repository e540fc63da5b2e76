/* ticket: the agent's Kerberos tickets, from a keytab that is opened anew for each and never copied, in a cache in memory that nobody else knows. For one thread; every call that
 * asks a KDC may take half a minute. krb5.conf and KRB5_CONFIG count; KRB5CCNAME, KRB5_KTNAME and KRB5_CLIENT_KTNAME do not, nor are host names turned into others by the DNS.
 * A KDC is asked by TCP, and by UDP only where that has no answer. */
#ifndef AGENT_DIRECTORY_TICKET_H
#define AGENT_DIRECTORY_TICKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Once, while the program has one thread. */
enum status ticket_prepare(void) MUST_USE;

struct ticket_facts {
	char principal[256];       /* "svc-writeback@CORP.EXAMPLE.COM"; "" before the first */
	char realm[128];
	int64_t from_s, until_s;   /* seconds since 1970; 0: there is none */
};
/* When a new one is to be had: at 80 % of its life; 0 where there is none. */
int64_t ticket_renewal_s(const struct ticket_facts *facts);

struct tickets;
/* `principal` NULL: the keytab's first. */
enum status tickets_new(const char *principal, const char *keytab, struct tickets **ret_tickets) MUST_USE;
void tickets_free(struct tickets *tickets);
/* A new ticket for the account; the old one stays where none is given. `why` gets a sentence that names principal, keytab or KDC and says what to do: directory.credential (the key,
 * the account), directory.unavailable (no KDC answers), agent.clock_skew. */
enum status tickets_acquire(struct tickets *tickets, char *why, size_t capacity) MUST_USE;
/* A ticket for ldap/`host`, so that what a KDC says of it has a code. Where the KDC does not take its own ticket back, none is left. */
enum status tickets_for_server(struct tickets *tickets, const char *host, char *why, size_t capacity) MUST_USE;
/* They were refused: none is left. */
void tickets_discard(struct tickets *tickets);
const struct ticket_facts *tickets_facts(const struct tickets *tickets);

/* A gss_cred_id_t on the tickets of now; counted, so that a negotiation keeps the ones that it began with. NULL: none. */
struct ticket_cache;
struct ticket_cache *tickets_cache_ref(struct tickets *tickets);
void ticket_cache_unref(struct ticket_cache *cache);
const void *ticket_cache_credential(const struct ticket_cache *cache);

/* What an error of libkrb5 means here; the row of `code`, or directory.unavailable. */
enum status ticket_error_status(int32_t code);

#endif
