#include "agent/directory/ticket.h"

#include <errno.h>
#include <gssapi/gssapi_ext.h>
#include <krb5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

struct ticket_cache {
	unsigned references;
	krb5_context context;          /* of its own: a negotiation may outlive the tickets */
	krb5_ccache cache;
	gss_cred_id_t credential;
};
struct tickets {
	char *principal, *keytab;
	krb5_context context;
	struct ticket_cache *cache;
	struct ticket_facts facts;
};

/* What an administrator reads: %P principal, %K keytab, %R realm. The text of libkrb5 follows where `detail`. */
static const struct error_row {
	krb5_error_code code;
	enum status status;
	bool detail;
	const char *text;
} ERRORS[] = {
	{ KRB5_KDC_UNREACH, STATUS_DIRECTORY_UNAVAILABLE, false, "the KDC of %R does not answer" },
	{ KRB5_REALM_UNKNOWN, STATUS_DIRECTORY_UNAVAILABLE, false, "no KDC of %R is known: name it in /etc/krb5.conf, or in the DNS (_kerberos._tcp)" },
	{ KRB5_REALM_CANT_RESOLVE, STATUS_DIRECTORY_UNAVAILABLE, false, "the KDC of %R cannot be found by its name: see /etc/krb5.conf and the DNS" },
	{ KRB5_CONFIG_CANTOPEN, STATUS_DIRECTORY_UNAVAILABLE, true, "/etc/krb5.conf cannot be read" },
	{ KRB5_CONFIG_BADFORMAT, STATUS_DIRECTORY_UNAVAILABLE, true, "/etc/krb5.conf is malformed" },
	{ KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN, STATUS_DIRECTORY_CREDENTIAL, false, "the KDC knows no %P: correct bind.principal, or export %K anew" },
	{ KRB5KDC_ERR_PREAUTH_FAILED, STATUS_DIRECTORY_CREDENTIAL, false, "the key in %K is not that of %P: its password was changed; export the keytab anew" },
	{ KRB5_PREAUTH_FAILED, STATUS_DIRECTORY_CREDENTIAL, false, "the key in %K is not that of %P: its password was changed; export the keytab anew" },
	{ KRB5KRB_AP_ERR_BAD_INTEGRITY, STATUS_DIRECTORY_CREDENTIAL, false, "the key in %K is not that of %P: its password was changed; export the keytab anew" },
	{ KRB5KDC_ERR_CLIENT_REVOKED, STATUS_DIRECTORY_CREDENTIAL, false, "the KDC says that the account %P is disabled, locked or expired: mend it in the directory" },
	{ KRB5KDC_ERR_NAME_EXP, STATUS_DIRECTORY_CREDENTIAL, false, "the account %P has expired: mend it in the directory" },
	{ KRB5KDC_ERR_KEY_EXP, STATUS_DIRECTORY_CREDENTIAL, false, "the password of %P has expired: set a new one that does not expire, and export %K anew" },
	{ KRB5KDC_ERR_POLICY, STATUS_DIRECTORY_CREDENTIAL, false, "the KDC's policy does not let %P in" },
	{ KRB5KDC_ERR_ETYPE_NOSUPP, STATUS_DIRECTORY_CREDENTIAL, false, "the KDC takes none of the encryption types in %K: export it with AES keys" },
	{ KRB5_CONFIG_ETYPE_NOSUPP, STATUS_DIRECTORY_CREDENTIAL, false, "krb5.conf permits none of the encryption types in %K: export it with AES keys" },
	{ KRB5_KT_NOTFOUND, STATUS_DIRECTORY_CREDENTIAL, false, "%K holds no key of %P that can be used: export it for this principal, with AES keys" },
	{ KRB5_KT_END, STATUS_DIRECTORY_CREDENTIAL, false, "%K holds no key: export it anew" },
	{ KRB5_KEYTAB_BADVNO, STATUS_DIRECTORY_CREDENTIAL, false, "%K is not a keytab: export it anew" },
	{ KRB5_KT_FORMAT, STATUS_DIRECTORY_CREDENTIAL, false, "%K is not a keytab: export it anew" },
	{ KRB5_KT_IOERR, STATUS_DIRECTORY_CREDENTIAL, false, "%K cannot be read as a keytab" },
	{ ENOENT, STATUS_DIRECTORY_CREDENTIAL, false, "%K does not exist: export the keytab of %P there" },
	{ EACCES, STATUS_DIRECTORY_CREDENTIAL, false, "%K cannot be read: let the agent's user read it" },
	{ KRB5_PARSE_MALFORMED, STATUS_DIRECTORY_CREDENTIAL, false, "%P is not a principal: correct bind.principal" },
	{ KRB5_CONFIG_NODEFREALM, STATUS_DIRECTORY_CREDENTIAL, false, "%P names no realm: write account@REALM in bind.principal" },
	{ KRB5KRB_AP_ERR_SKEW, STATUS_AGENT_CLOCK_SKEW, false, "this host's clock and the KDC's of %R differ by more than 5 minutes: mend time synchronization" },
	{ KRB5KRB_AP_ERR_TKT_NYV, STATUS_AGENT_CLOCK_SKEW, false, "this host's clock and the KDC's of %R differ by more than 5 minutes: mend time synchronization" },
	{ KRB5_KDCREP_SKEW, STATUS_AGENT_CLOCK_SKEW, false, "this host's clock and the KDC's of %R differ by more than 5 minutes: mend time synchronization" },
	{ ENOMEM, STATUS_AGENT_INTERNAL, false, "memory is out" },
};

static const struct error_row *find_row(krb5_error_code code)
{
	for (size_t i = 0; i < sizeof ERRORS / sizeof ERRORS[0]; i++) {
		if (ERRORS[i].code == code) {
			return &ERRORS[i];
		}
	}
	return NULL;
}

enum status ticket_error_status(int32_t code)
{
	const struct error_row *row = code == 0 ? NULL : find_row(code);
	return code == 0 ? STATUS_OK : row != NULL ? row->status : STATUS_DIRECTORY_UNAVAILABLE;
}

static void append(char *out, size_t capacity, const char *text, size_t size)
{
	size_t used = strlen(out);
	snprintf(out + used, capacity - used, "%.*s", (int)size, text);
}

/* Of "name@REALM", or the realm that is known. */
static const char *realm_of(const struct tickets *tickets)
{
	const char *at = tickets->principal != NULL ? strrchr(tickets->principal, '@') : NULL;
	return tickets->facts.realm[0] != 0 ? tickets->facts.realm : at != NULL ? at + 1 : "the default realm";
}

static void fill_in(const struct tickets *tickets, const char *text, char *why, size_t capacity)
{
	why[0] = 0;
	for (const char *at = text; *at != 0;) {
		size_t plain = strcspn(at, "%");
		append(why, capacity, at, plain);
		at += plain;
		if (*at != 0) {
			const char *value = at[1] == 'K' ? tickets->keytab : at[1] == 'R' ? realm_of(tickets)
			                    : tickets->facts.principal[0] != 0 ? tickets->facts.principal : tickets->principal != NULL ? tickets->principal : "its first principal";
			append(why, capacity, value, strlen(value));
			at += 2;
		}
	}
}

static enum status explain(const struct tickets *tickets, krb5_error_code code, const char *what, char *why, size_t capacity)
{
	const struct error_row *row = find_row(code);
	const char *detail = krb5_get_error_message(tickets->context, code);
	if (row == NULL) {
		snprintf(why, capacity, "%s: %s", what, detail);
	} else {
		fill_in(tickets, row->text, why, capacity);
	}
	if (row != NULL && row->detail) {
		append(why, capacity, ": ", 2);
		append(why, capacity, detail, strlen(detail));
	}
	krb5_free_error_message(tickets->context, detail);
	return ticket_error_status(code);
}

/* libgssapi has contexts of its own, which only krb5.conf can tell not to rename hosts: so a file in memory is read before the administrator's.
 * KDCs are asked by TCP first: nobody signs a KDC's refusal, and a datagram may come from anybody. */
enum status ticket_prepare(void)
{
	static const char RULES[] = "[libdefaults]\n\tdns_canonicalize_hostname = false\n\trdns = false\n\tudp_preference_limit = 1\n";
	static const char MINE[] = "/proc/self/fd/";
	const char *given = getenv("KRB5_CONFIG");
	AUTO_FREE char *path = NULL;
	if (given != NULL && strncmp(given, MINE, strlen(MINE)) == 0) {
		return STATUS_OK;
	}
	int fd = memfd_create("krb5.conf", MFD_CLOEXEC);
	if (fd < 0 || write(fd, RULES, strlen(RULES)) != (ssize_t)strlen(RULES) || asprintf(&path, "%s%d:%s", MINE, fd, given != NULL ? given : "/etc/krb5.conf") < 0) {
		path = NULL;
	}
	if (path == NULL || setenv("KRB5_CONFIG", path, 1) != 0) {
		if (fd >= 0) {
			close(fd);
		}
		return STATUS_AGENT_INTERNAL;
	}
	return STATUS_OK;
}

int64_t ticket_renewal_s(const struct ticket_facts *facts)
{
	return facts->until_s == 0 ? 0 : facts->from_s + (facts->until_s - facts->from_s) * 4 / 5;
}

enum status tickets_new(const char *principal, const char *keytab, struct tickets **ret_tickets)
{
	struct tickets *tickets = calloc(1, sizeof *tickets);
	if (tickets == NULL || (principal != NULL && (tickets->principal = strdup(principal)) == NULL) || asprintf(&tickets->keytab, "%s", keytab) < 0) {
		if (tickets != NULL) {
			free(tickets->principal);
		}
		free(tickets);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_tickets = tickets;
	return STATUS_OK;
}

void tickets_free(struct tickets *tickets)
{
	if (tickets == NULL) {
		return;
	}
	ticket_cache_unref(tickets->cache);
	if (tickets->context != NULL) {
		krb5_free_context(tickets->context);
	}
	free(tickets->principal);
	free(tickets->keytab);
	free(tickets);
}

void ticket_cache_unref(struct ticket_cache *cache)
{
	OM_uint32 minor;
	if (cache == NULL || --cache->references > 0) {
		return;
	}
	gss_release_cred(&minor, &cache->credential);
	if (cache->cache != NULL) {
		krb5_cc_destroy(cache->context, cache->cache);
	}
	if (cache->context != NULL) {
		krb5_free_context(cache->context);
	}
	free(cache);
}

struct ticket_cache *tickets_cache_ref(struct tickets *tickets)
{
	if (tickets->cache != NULL) {
		tickets->cache->references++;
	}
	return tickets->cache;
}

const void *ticket_cache_credential(const struct ticket_cache *cache)
{
	return cache->credential;
}

/* For SPNEGO too, which does not take the credential of another mechanism for its own. */
static krb5_error_code take_credential(const char *cache_name, gss_cred_id_t *ret_credential)
{
	static gss_OID_desc MECHANISMS[] = { { 9, (void *)"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02" }, { 6, (void *)"\x2b\x06\x01\x05\x05\x02" } };
	gss_OID_set_desc wanted = { 2, MECHANISMS };
	gss_key_value_element_desc where = { "ccache", cache_name };
	const gss_key_value_set_desc store = { 1, &where };
	OM_uint32 minor = 0, major = gss_acquire_cred_from(&minor, GSS_C_NO_NAME, GSS_C_INDEFINITE, &wanted, GSS_C_INITIATE, &store, ret_credential, NULL, NULL);
	return major == GSS_S_COMPLETE ? 0 : minor != 0 ? (krb5_error_code)minor : ENOMEM;
}

/* A cache in memory, under a name that nobody else has. */
static krb5_error_code cache_new(krb5_creds *creds, struct ticket_cache **ret_cache)
{
	struct ticket_cache *cache = calloc(1, sizeof *cache);
	char *name = NULL;
	if (cache == NULL) {
		return ENOMEM;
	}
	cache->references = 1;
	cache->credential = GSS_C_NO_CREDENTIAL;
	krb5_error_code code = krb5_init_context(&cache->context);
	code = code != 0 ? code : krb5_cc_new_unique(cache->context, "MEMORY", NULL, &cache->cache);
	code = code != 0 ? code : krb5_cc_initialize(cache->context, cache->cache, creds->client);
	code = code != 0 ? code : krb5_cc_store_cred(cache->context, cache->cache, creds);
	code = code != 0 ? code : krb5_cc_get_full_name(cache->context, cache->cache, &name);
	code = code != 0 ? code : take_credential(name, &cache->credential);
	krb5_free_string(cache->context, name);
	if (code != 0) {
		ticket_cache_unref(cache);
		return code;
	}
	*ret_cache = cache;
	return 0;
}

static krb5_error_code first_principal(krb5_context context, krb5_keytab keytab, krb5_principal *ret_principal)
{
	krb5_kt_cursor cursor;
	krb5_keytab_entry entry;
	krb5_error_code code = krb5_kt_start_seq_get(context, keytab, &cursor);
	if (code != 0) {
		return code;
	}
	code = krb5_kt_next_entry(context, keytab, &entry, &cursor);
	if (code == 0) {
		code = krb5_copy_principal(context, entry.principal, ret_principal);
		krb5_free_keytab_entry_contents(context, &entry);
	}
	krb5_kt_end_seq_get(context, keytab, &cursor);
	return code;
}

static void note_principal(struct tickets *tickets, krb5_principal principal)
{
	char *name = NULL;
	if (krb5_unparse_name(tickets->context, principal, &name) == 0) {
		snprintf(tickets->facts.principal, sizeof tickets->facts.principal, "%s", name);
		krb5_free_unparsed_name(tickets->context, name);
	}
	snprintf(tickets->facts.realm, sizeof tickets->facts.realm, "%.*s", (int)principal->realm.length, principal->realm.data);
}

/* A fresh context each time, so that a corrected krb5.conf counts. */
static krb5_error_code acquire(struct tickets *tickets)
{
	krb5_keytab keytab = NULL;
	krb5_principal principal = NULL;
	krb5_creds creds = { 0 };
	struct ticket_cache *cache = NULL;
	AUTO_FREE char *name = NULL;
	if (tickets->context != NULL) {
		krb5_free_context(tickets->context);
		tickets->context = NULL;
	}
	krb5_error_code code = krb5_init_context(&tickets->context);
	code = code != 0 ? code : asprintf(&name, "FILE:%s", tickets->keytab) < 0 ? ENOMEM : krb5_kt_resolve(tickets->context, name, &keytab);
	/* Else libkrb5 asks the KDC before it sees that the file holds nothing. */
	code = code != 0 ? code : first_principal(tickets->context, keytab, &principal);
	if (code == 0 && tickets->principal != NULL) {
		krb5_free_principal(tickets->context, principal);
		principal = NULL;
		code = krb5_parse_name(tickets->context, tickets->principal, &principal);
	}
	if (code == 0) {
		note_principal(tickets, principal);
		code = krb5_get_init_creds_keytab(tickets->context, &creds, principal, keytab, 0, NULL, NULL);
	}
	code = code != 0 ? code : cache_new(&creds, &cache);
	if (code == 0) {
		ticket_cache_unref(tickets->cache);
		tickets->cache = cache;
		tickets->facts.from_s = creds.times.starttime != 0 ? creds.times.starttime : creds.times.authtime;
		tickets->facts.until_s = creds.times.endtime;
		note_principal(tickets, creds.client); /* the KDC may have given it another spelling */
	}
	if (tickets->context != NULL) {
		krb5_free_cred_contents(tickets->context, &creds);
		krb5_free_principal(tickets->context, principal);
	}
	if (keytab != NULL) {
		krb5_kt_close(tickets->context, keytab);
	}
	return code;
}

enum status tickets_acquire(struct tickets *tickets, char *why, size_t capacity)
{
	krb5_error_code code = acquire(tickets);
	return code == 0 ? STATUS_OK : explain(tickets, code, "no ticket could be had", why, capacity);
}

/* The KDC does not take its own ticket back: it ran out, or the KDC's key is another one now. */
static bool is_refused_ticket(krb5_error_code code)
{
	return code == KRB5KRB_AP_ERR_TKT_EXPIRED || code == KRB5KRB_AP_ERR_BAD_INTEGRITY || code == KRB5KRB_AP_ERR_MODIFIED || code == KRB5KRB_AP_ERR_BADKEYVER ||
	       code == KRB5KDC_ERR_TGT_REVOKED;
}

enum status tickets_for_server(struct tickets *tickets, const char *host, char *why, size_t capacity)
{
	krb5_context context = tickets->cache->context;
	krb5_creds wanted = { 0 }, *found = NULL;
	krb5_error_code code = krb5_cc_get_principal(context, tickets->cache->cache, &wanted.client);
	code = code != 0 ? code : krb5_sname_to_principal(context, host, "ldap", KRB5_NT_SRV_HST, &wanted.server);
	code = code != 0 ? code : krb5_get_credentials(context, 0, tickets->cache->cache, &wanted, &found);
	krb5_free_cred_contents(context, &wanted);
	if (found != NULL) {
		krb5_free_creds(context, found);
	}
	if (code == KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN) {
		snprintf(why, capacity, "the KDC knows no service ldap/%s: name the server in `servers` as its own account does (dc1.corp.example.com), not by an address or an alias", host);
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	if (is_refused_ticket(code)) {
		snprintf(why, capacity, "the KDC of %.100s does not take its ticket back (%s): a new one is asked for", realm_of(tickets), error_message(code));
		tickets_discard(tickets);
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	return code == 0 ? STATUS_OK : explain(tickets, code, "no ticket for the server could be had", why, capacity);
}

void tickets_discard(struct tickets *tickets)
{
	ticket_cache_unref(tickets->cache);
	tickets->cache = NULL;
	tickets->facts.from_s = tickets->facts.until_s = 0;
}

const struct ticket_facts *tickets_facts(const struct tickets *tickets)
{
	return &tickets->facts;
}
