/* bench-ldap: the same modifies as the agent's, by raw libldap on one connection, so many in flight: what the directory itself can do.
 * usage: bench-ldap URI CA BIND-DN PASSWORD-FILE BASE TOTAL IN-FLIGHT USERS POLICY-CONTROL(0|1). Prints one JSON object. Used by bench.py. */
#include <ldap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/secret.h"

static void die(const char *what, int error)
{
	fprintf(stderr, "bench-ldap: %s: %s\n", what, ldap_err2string(error));
	exit(1);
}

struct flight {
	int msgid;
	int64_t sent_us;
};

static void send_modify(LDAP *ld, const char *base, unsigned user, unsigned number, bool hints, struct flight *flight)
{
	char dn[256], password[64];
	uint8_t value[256];
	snprintf(dn, sizeof dn, "CN=bench%03u,OU=People,%s", user, base);
	snprintf(password, sizeof password, "\"Bench-%08x-%u\"", (unsigned)clock_monotonic_us(), number);
	utf8_to_utf16le(bytes_of_string(password), value);
	struct berval password_value = { strlen(password) * 2, (char *)value }, *values[] = { &password_value, NULL };
	LDAPMod replace = { .mod_op = LDAP_MOD_REPLACE | LDAP_MOD_BVALUES, .mod_type = (char *)"unicodePwd", .mod_bvalues = values }, *mods[] = { &replace, NULL };
	LDAPControl control = { .ldctl_oid = (char *)"1.2.840.113556.1.4.2239", .ldctl_value = { 5, (char *)"\x30\x03\x02\x01\x01" }, .ldctl_iscritical = 1 };
	LDAPControl *controls[] = { hints ? &control : NULL, NULL };
	flight->sent_us = clock_monotonic_us();
	int error = ldap_modify_ext(ld, dn, mods, controls, NULL, &flight->msgid);
	if (error != LDAP_SUCCESS)
		die("modify", error);
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	if (argc != 10)
		die("usage: URI CA BIND-DN PASSWORD-FILE BASE TOTAL IN-FLIGHT USERS HINTS", LDAP_PARAM_ERROR);
	unsigned total = (unsigned)atoi(argv[6]), in_flight = (unsigned)atoi(argv[7]), users = (unsigned)atoi(argv[8]), sent = 0, done = 0, applied = 0;
	bool hints = argv[9][0] == '1';
	int version = 3, demand = LDAP_OPT_X_TLS_DEMAND, fresh = 0;
	LDAP *ld;
	int error = ldap_initialize(&ld, argv[1]);
	if (error != LDAP_SUCCESS)
		die(argv[1], error);
	ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version);
	ldap_set_option(ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
	ldap_set_option(ld, LDAP_OPT_X_TLS_CACERTFILE, argv[2]);
	ldap_set_option(ld, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand);
	ldap_set_option(ld, LDAP_OPT_X_TLS_NEWCTX, &fresh);
	struct secret password = SECRET_EMPTY;
	if (secret_read_file(argv[4], &password) != STATUS_OK)
		die(argv[4], LDAP_LOCAL_ERROR);
	struct berval credential = { password.size, (char *)password.data };
	error = ldap_sasl_bind_s(ld, argv[3], LDAP_SASL_SIMPLE, &credential, NULL, NULL, NULL);
	if (error != LDAP_SUCCESS)
		die("bind", error);

	struct flight *flights = calloc(in_flight, sizeof *flights);
	int64_t *latencies = calloc(total, sizeof *latencies);
	if (!flights || !latencies)
		die("memory", LDAP_NO_MEMORY);
	int64_t began = clock_monotonic_us();
	for (; sent < in_flight; sent++)
		send_modify(ld, argv[5], sent % users, sent, hints, &flights[sent]);
	while (done < total) {
		LDAPMessage *message;
		struct timeval limit = { 30, 0 };
		if (ldap_result(ld, LDAP_RES_ANY, LDAP_MSG_ONE, &limit, &message) <= 0)
			die("no answer", LDAP_TIMEOUT);
		int result = LDAP_OTHER, id = ldap_msgid(message);
		ldap_parse_result(ld, message, &result, NULL, NULL, NULL, NULL, 1);
		for (unsigned i = 0; i < in_flight; i++)
			if (flights[i].msgid == id) {
				latencies[done++] = clock_monotonic_us() - flights[i].sent_us;
				applied += result == LDAP_SUCCESS;
				flights[i].msgid = 0;
				if (sent < total) {
					send_modify(ld, argv[5], sent % users, sent, hints, &flights[i]);
					sent++;
				}
				break;
			}
	}
	double seconds = (double)(clock_monotonic_us() - began) / 1e6;
	qsort(latencies, total, sizeof *latencies, by_value);
	printf("{\"total\": %u, \"applied\": %u, \"seconds\": %.4f, \"per_second\": %.1f, \"p50_us\": %ld, \"p99_us\": %ld}\n", total, applied, seconds, total / seconds,
	       (long)latencies[total / 2], (long)latencies[total - 1 - total / 100]);
	ldap_unbind_ext_s(ld, NULL, NULL);
	free(flights);
	free(latencies);
	secret_wipe(&password);
	return 0;
}
