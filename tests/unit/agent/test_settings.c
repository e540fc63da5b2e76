#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/pem.h>

#include "agent/gate/scope.h"
#include "agent/settings.h"
#include "proto/messages.h"

static char password_file[] = "/tmp/test-settings-XXXXXX";

static int make_file(void **state)
{
	int fd = mkstemp(password_file);
	return fd < 0 || write(fd, "secret\n", 7) != 7 || close(fd) != 0;
}

static int remove_file(void **state)
{
	return unlink(password_file);
}

/* A file with `scope` as the lines below it and `more` at its top level. */
static const char *file_with(const char *more, const char *scope)
{
	static char text[4096];
	snprintf(text, sizeof text, "%sdirectories:\n  - name: corp\n    servers: [dc1.corp.example.com]\n    bind:\n      dn: svc@corp.example.com\n      password_file: %s\n    scope:\n%sstate_directory: /nonexistent/state\n", more, password_file, scope);
	return text;
}

#define SELECTED "      users: selected\n      bases: [\"OU=People,DC=corp,DC=example,DC=com\"]\n"

static void assert_good(const char *text, struct settings *ret_settings)
{
	struct config_errors errors = { 0 };
	enum status status = settings_parse("test.yaml", text, ret_settings, &errors);
	config_errors_print(&errors, stderr);
	config_errors_clear(&errors);
	assert_int_equal(status, STATUS_OK);
}

/* One finding, at this line, that says this. */
static void assert_bad(const char *text, unsigned line, const char *says)
{
	struct settings settings;
	struct config_errors errors = { 0 };
	assert_int_equal(settings_parse("test.yaml", text, &settings, &errors), STATUS_LOCAL_CONFIG);
	assert_true(errors.count >= 1);
	if (!strstr(errors.items[0].text, says))
		fail_msg("said: %s", errors.items[0].text);
	assert_string_equal(errors.items[0].file, "test.yaml");
	assert_int_equal(errors.items[0].line, line);
	config_errors_clear(&errors);
}

static void test_defaults(void **state)
{
	struct settings settings;
	assert_good(file_with("", SELECTED), &settings);
	assert_string_equal(settings.control_socket, "/run/writebackd/control.sock");
	assert_string_equal(settings.channel_socket, "/run/writebackd/channel.sock");
	assert_int_equal(settings_operations(&settings), ((1u << OP_COUNT) - 1) & ~(1u << OP_VERIFY)); /* verify only where it is written out */
	assert_false(settings.allow_unenforced_policy);
	assert_int_equal(settings.settling_delay_ms, 30000);
	assert_int_equal(settings.settling_limit_ms, 900000);
	assert_int_equal(settings_log_level(&settings), LOG_INFO);
	struct limits_settings limits;
	settings_limits(&settings, &limits);
	assert_int_equal(limits.in_flight, 256);
	assert_int_equal(limits.per_user_hour, 3);
	assert_int_equal(limits.latch_per_hour, 300);
	/* One in a hundred users, where that is more; never is never. */
	settings.users = 30000;
	settings_limits(&settings, &limits);
	assert_int_equal(limits.latch_per_hour, 300);
	settings.users = 50000;
	settings_limits(&settings, &limits);
	assert_int_equal(limits.latch_per_hour, 500);
	settings.latch_per_hour = 0;
	settings_limits(&settings, &limits);
	assert_int_equal(limits.latch_per_hour, 0);
	assert_int_equal(settings_directory_count(&settings), 1);
	const struct settings_directory *directory = settings_directory_at(&settings, 0);
	assert_string_equal(directory->servers.items[0], "dc1.corp.example.com");
	assert_int_equal(directory->scope_users, SCOPE_SELECTED);
	assert_int_equal(directory->write_timeout_ms, 10000);
	assert_int_equal(directory->policy_hints, 0);
	assert_int_equal(settings_allow(directory), 0);
	assert_int_equal(directory->exempt_administrators.count, 0);
	settings_clear(&settings);
}

static void test_everything(void **state)
{
	struct settings settings;
	assert_good(file_with("operations: [unlock]\nallow_unenforced_policy: true\nlimits: {in_flight: 8, per_minute: 0}\nsettling: {delay: 1s, limit: 1min}\nlog: {level: warning, format: json}\n",
	                      "      users: all\n      exclude_groups: [S-1-5-21-1-2-3-1104]\n      protect: [\"CN=VIP,DC=corp,DC=example,DC=com\"]\n      exempt_administrators: [S-1-5-32-550]\n      allow: [smartcard, disabled]\n"), &settings);
	assert_int_equal(settings_operations(&settings), 1u << OP_UNLOCK);
	assert_true(settings.allow_unenforced_policy);
	assert_int_equal(settings.in_flight, 8);
	assert_int_equal(settings.settling_delay_ms, 1000);
	assert_int_equal(settings_log_level(&settings), LOG_WARNING);
	assert_int_equal(settings_directory_at(&settings, 0)->scope_users, SCOPE_ALL);
	assert_int_equal(settings_directory_at(&settings, 0)->protect.count, 1);
	assert_int_equal(settings_directory_at(&settings, 0)->exempt_administrators.count, 1);
	assert_int_equal(settings_allow(settings_directory_at(&settings, 0)), SCOPE_ALLOW_SMARTCARD | SCOPE_ALLOW_DISABLED);
	settings_clear(&settings);
}

static void test_judgements(void **state)
{
	struct settings settings;
	assert_bad(file_with("", "      users: selected\n"), 8, "needs scope.bases or scope.groups");
	assert_bad(file_with("", "      users: all\n      bases: [\"DC=corp\"]\n"), 8, "only with \"selected\"");
	assert_bad(file_with("", "      users: selected\n      bases: [People]\n"), 9, "not a DN");
	assert_bad(file_with("", "      users: selected\n      groups: [S-1-x]\n"), 9, "neither a SID");
	assert_bad(file_with("", "      users: selected\n      groups: [Self-Service]\n"), 9, "neither a SID");
	assert_bad(file_with("", SELECTED "      allow: [disabled, locked]\n"), 10, "\"locked\" is no state: disabled, expired, smartcard or cannot_change");
	assert_bad(file_with("", SELECTED "      allow: [disabled, disabled]\n"), 10, "twice");
	assert_bad(file_with("", SELECTED "      exempt_administrators: [S-1-5-21-1-2-3-1104]\n"), 10, "not the SID of a protected group");
	assert_bad(file_with("", SELECTED "      exempt_administrators: [S-1-5-21-1-2-3-516]\n"), 10, "not the SID of a protected group");
	assert_bad(file_with("", SELECTED "      exempt_administrators: [Domain Admins]\n"), 10, "neither a SID");
	assert_bad(file_with("", SELECTED "      exempt_administrators: [S-1-5-32-550]\n      protect: [S-1-5-32-550]\n"), 10, "which wins");
	assert_bad(file_with("limit: {per_minute: 3}\n", SELECTED), 1, "the nearest known one is \"limits\"");
	assert_bad(file_with("delay: 3s\n", SELECTED), 1, "there is \"settling.delay\"");
	assert_bad(file_with("foo: 3\n", SELECTED), 1, "known here are");
	assert_bad(file_with("operations: [reset, Change]\n", SELECTED), 1, "not an operation");
	assert_good(file_with("operations: [change, lookup, policy, verify]\nlimits: {wrong_per_user_hour: 0, wrong_per_minute: 0, lookups_per_minute: 1}\n", SELECTED), &settings);
	assert_int_equal(settings_operations(&settings), 1u << OP_CHANGE | 1u << OP_LOOKUP | 1u << OP_POLICY | 1u << OP_VERIFY);
	settings_clear(&settings);
	assert_bad(file_with("limits: {wrong_per_user_hour: 33}\n", SELECTED), 1, "wrong_per_user_hour");
	assert_bad(file_with("operations: [fly]\n", SELECTED), 1, "not an operation");
	assert_bad(file_with("settling: {delay: 30s, limit: 30s}\n", SELECTED), 1, "longer than");
	assert_bad(file_with("limits: {in_flight: 0}\n", SELECTED), 1, "");
	assert_bad(file_with("operations: [reset, reset]\n", SELECTED), 1, "twice");
	assert_bad(file_with("", "      users: selected\n      bases: [\"OU=a,DC=b\", \"ou=A, dc=B\"]\n"), 9, "twice");
	assert_bad(file_with("control_socket: /run/writebackd/channel.sock\n", SELECTED), 1, "another path");
	assert_bad(file_with("control_socket: /run/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789/a.sock\n", SELECTED), 1, "at most 107 bytes; this one has 112");
	assert_bad(file_with("", SELECTED "    base_dn: corp.example.com\n"), 10, "base_dn: \"corp.example.com\" is not a DN");
	assert_bad(file_with("", SELECTED "    domains: [CORP, corp]\n"), 10, "twice");
}

/* One directory with this line in place of that of `key`. */
static const char *directory_with(const char *name, const char *servers, const char *dn)
{
	static char text[4096];
	snprintf(text, sizeof text, "directories:\n  - name: %s\n    servers: %s\n    bind:\n      dn: %s\n      password_file: %s\n    scope:\n%sstate_directory: /nonexistent/state\n", name, servers, dn, password_file, SELECTED);
	return text;
}

static const char *directory_found(const char *how)
{
	static char text[1024];
	snprintf(text, sizeof text, "directories:\n  - name: corp\n    %s\n    bind:\n      dn: a@b\n      password_file: %s\n    scope:\n%sstate_directory: /nonexistent/state\n", how, password_file, SELECTED);
	return text;
}

/* Flavor ldap with these lines more, and this scope. */
static const char *ldap_with(const char *more, const char *dn, const char *scope)
{
	static char text[4096];
	snprintf(text, sizeof text, "directories:\n  - name: staff\n    flavor: ldap\n    servers: [ldap1]\n    bind:\n      dn: %s\n      password_file: %s\n    scope:\n%s%sstate_directory: /nonexistent/state\n", dn,
	         password_file, scope, more);
	return text;
}

#define LDAP_SCOPE "      users: selected\n      bases: [\"ou=people,dc=x\"]\n"
#define LDAP_BASE "    base_dn: dc=x\n"
#define LDAP_DN "cn=svc,dc=x"
static void test_flavor_ldap(void **state)
{
	static const struct { const char *more, *dn, *scope; unsigned line; const char *says; } bad[] = {
		{ "", LDAP_DN, LDAP_SCOPE, 2, "base_dn: is missing, and flavor ldap needs it" },
		{ LDAP_BASE "    login_attribute: \"uid)(cn\"\n", LDAP_DN, LDAP_SCOPE, 12, "login_attribute: \"uid)(cn\" is not an attribute's name" },
		{ LDAP_BASE "    default_policy: default\n", LDAP_DN, LDAP_SCOPE, 12, "default_policy: \"default\" is not a DN" },
		{ LDAP_BASE, "svc@x", LDAP_SCOPE, 6, "bind.dn: \"svc@x\" is not a DN" },
		{ LDAP_BASE, LDAP_DN, "      users: selected\n      groups: [S-1-5-21-1-2-3-1104]\n", 10, "there are no SIDs in flavor ldap" },
		{ LDAP_BASE, LDAP_DN, LDAP_SCOPE "      exclude_groups: [S-1-5-21-1-2-3-1104]\n", 11, "there are no SIDs in flavor ldap" },
		{ LDAP_BASE, LDAP_DN, LDAP_SCOPE "      protect: [S-1-5-32-544]\n", 11, "there are no SIDs in flavor ldap" },
		{ LDAP_BASE, LDAP_DN, LDAP_SCOPE "      exempt_administrators: [S-1-5-32-550]\n", 11, "scope.exempt_administrators: means nothing with flavor ldap" },
		{ LDAP_BASE, LDAP_DN, "      users: all\n", 8, "scope.protect: is missing: flavor ldap knows no administrators by itself" },
		{ LDAP_BASE "    prefer: pdc\n", LDAP_DN, LDAP_SCOPE, 12, "prefer: only Active Directory has a PDC emulator" },
	};
	struct settings settings;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_bad(ldap_with(bad[i].more, bad[i].dn, bad[i].scope), bad[i].line, bad[i].says);
	assert_good(ldap_with(LDAP_BASE "    login_attribute: employee-Number2\n    default_policy: cn=default,dc=x\n", LDAP_DN, LDAP_SCOPE), &settings);
	assert_string_equal(settings_directory_at(&settings, 0)->login_attribute, "employee-Number2");
	settings_clear(&settings);
	assert_good(ldap_with(LDAP_BASE, LDAP_DN, "      users: all\n      protect: [\"cn=admins,dc=x\"]\n"), &settings);
	settings_clear(&settings);
	/* What only the flavor ldap has means nothing elsewhere. */
	assert_bad(file_with("", SELECTED "    login_attribute: uid\n"), 10, "login_attribute: means something only with flavor: ldap");
	assert_bad(file_with("", SELECTED "    default_policy: cn=x\n"), 10, "default_policy: means something only with flavor: ldap");
}

static void test_discovery(void **state)
{
	static const struct { const char *how; unsigned line; const char *says; } bad[] = {
		{ "prefer: listed", 2, "servers: list the directory's servers, host or host:port; or let DNS name them: discover: {domain: corp.example.com}" },
		{ "servers: [dc1]\n    discover: {domain: corp.example.com}", 4, "discover.domain: servers are listed too: keep either servers or discover" },
		{ "discover: {domain: corp..com}", 3, "is not the name of a DNS domain" },
		{ "discover: {domain: 'a b'}", 3, "is not the name of a DNS domain" },
		{ "discover: {domain: .corp}", 3, "is not the name of a DNS domain" },
		{ "servers: [dc1]\n    discover: {site: Berlin}", 4, "discover.site: means something only with discover.domain" },
		{ "discover: {domain: corp.example.com, site: a.b}", 3, "\"a.b\" is not the name of a site" },
		{ "servers: [dc1]\n    prefer: best", 4, "listed" },
	};
	struct settings settings;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_bad(directory_found(bad[i].how), bad[i].line, bad[i].says);
	assert_good(directory_found("discover: {domain: corp.example.com, site: Berlin}\n    prefer: pdc"), &settings);
	const struct settings_directory *directory = settings_directory_at(&settings, 0);
	assert_string_equal(directory->discover_domain, "corp.example.com");
	assert_string_equal(directory->discover_site, "Berlin");
	assert_int_equal(directory->prefer, PREFER_PDC);
	assert_int_equal(directory->servers.count, 0);
	settings_clear(&settings);
}

static void test_names_and_servers(void **state)
{
	static const struct { const char *servers, *says; } bad[] = {
		{ "[\"ldaps://dc1\"]", "scheme" }, { "[\"dc1,dc2\"]", "comma" }, { "[\"dc1 dc2\"]", "blank" }, { "[\"dc1:0\"]", "port" }, { "[\"dc1:65536\"]", "port" }, { "[\"dc1:\"]", "port" },
		{ "[\"dc1:ldaps\"]", "port" }, { "[\":636\"]", "no host" }, { "[\"fe80::1:636:x\"]", "colon" }, { "[\"[::1\"]", "IPv6" }, { "[\"[::1]:0\"]", "port" }, { "[\"dc1/x\"]", "host name" },
		{ "[dc1, DC1]", "twice" }, { "[dc1, \"dc1:636\"]", "twice" },
	};
	static const char *const good[] = { "[dc1]", "[\"dc1:636\"]", "[\"dc1:65535\", dc1]", "[\"::1\"]", "[\"[::1]:636\"]", "[10.0.0.1]" };
	struct settings settings;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_bad(directory_with("corp", bad[i].servers, "a@b"), 3, bad[i].says);
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_good(directory_with("corp", good[i], "a@b"), &settings);
		settings_clear(&settings);
	}
	assert_bad(directory_with("\"my corp\"", "[dc1]", "a@b"), 2, "letters, digits");
	assert_bad(directory_with("corp/x", "[dc1]", "a@b"), 2, "letters, digits");
	assert_bad(directory_with("corp", "[dc1]", "svc-writeback"), 5, "neither a DN");
	assert_bad(directory_with("corp", "[dc1]", "CN=svc,writeback"), 5, "neither a DN");
	assert_good(directory_with("corp", "[dc1]", "\"CORP\\\\svc\""), &settings);
	settings_clear(&settings);
}

static void put(const char *path, const char *content, mode_t mode)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(content, file);
	fclose(file);
	assert_int_equal(chmod(path, mode), 0);
}

/* Each file is judged as the start would: what it refuses, with the right words. */
static void test_files(void **state)
{
	static const struct { const char *content; mode_t mode; const char *says; } bad[] = {
		{ "", 0600, "is empty" }, { "\n", 0600, "one line" }, { "a\nb\n", 0600, "one line" }, { "a\n", 0644, "open to everybody" }, { "a\n", 0660, "written by its group" },
	};
	struct settings settings;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		put(password_file, bad[i].content, bad[i].mode);
		assert_bad(file_with("", SELECTED), 6, bad[i].says);
	}
	put(password_file, "secret\n", 0640);
	assert_good(file_with("", SELECTED), &settings);
	settings_clear(&settings);
	char more[256];
	snprintf(more, sizeof more, "%s    ca_file: %s\n", SELECTED, password_file);
	assert_bad(file_with("", more), 10, "holds no certificate in PEM");
	snprintf(more, sizeof more, "%s    crl_file: %s\n", SELECTED, password_file);
	assert_bad(file_with("", more), 10, "holds no CRL in PEM");
	assert_bad(file_with("", SELECTED "    ca_file: /tmp\n"), 10, "is a folder");
	/* 32 octets wrap the agent's keys, neither one more nor one less. */
	static const struct { const char *content; mode_t mode; const char *says; } wrap[] = {
		{ "0123456789abcdef0123456789abcde", 0600, "exactly 32 bytes, it has 31" }, { "0123456789abcdef0123456789abcdef\n", 0600, "exactly 32 bytes, it has 33" },
		{ "0123456789abcdef0123456789abcdef", 0644, "open to everybody" },
	};
	char lines[128];
	snprintf(lines, sizeof lines, "keys: {wrap_key_file: %s.wrap}\n", password_file);
	char wrap_file[64];
	snprintf(wrap_file, sizeof wrap_file, "%s.wrap", password_file);
	put(password_file, "secret\n", 0600);
	assert_bad(file_with(lines, SELECTED), 1, "keys.wrap_key_file");
	for (size_t i = 0; i < sizeof wrap / sizeof wrap[0]; i++) {
		put(wrap_file, wrap[i].content, wrap[i].mode);
		assert_bad(file_with(lines, SELECTED), 1, wrap[i].says);
	}
	put(wrap_file, "0123456789abcdef0123456789abcdef", 0400);
	assert_good(file_with(lines, SELECTED), &settings);
	settings_clear(&settings);
	unlink(wrap_file);
}

static const char *bind_with(const char *lines)
{
	static char text[4096];
	snprintf(text, sizeof text, "directories:\n  - name: corp\n    servers: [dc1]\n    bind:\n%s    scope:\n%sstate_directory: /nonexistent/state\n", lines, SELECTED);
	return text;
}

/* Each mechanism needs its own keys and takes no others. */
static void test_bind_keys(void **state)
{
	static const struct { const char *lines; unsigned line; const char *says; } bad[] = {
		{ "      mechanism: gssapi\n", 4, "bind.keytab: is missing, and mechanism gssapi needs it: name the keytab" },
		{ "      mechanism: gss-spnego\n", 4, "bind.keytab: is missing, and mechanism gss-spnego needs it" },
		{ "      mechanism: external\n", 4, "bind.certificate: is missing, and mechanism external needs it" },
		{ "      mechanism: simple\n", 4, "bind.dn: is missing, and mechanism simple needs it: name the account" },
		{ "      dn: a@b\n", 4, "bind.password_file: is missing, and mechanism simple needs it: name the file with" },
		{ "      dn: a@b\n      mechanism: gssapi\n", 5, "bind.dn: means nothing with mechanism gssapi: remove it" },
		{ "      mechanism: gssapi\n      keytab: /nonexistent/keytab\n      password_file: /nonexistent/x\n", 7, "bind.password_file: means nothing with mechanism gssapi" },
		{ "      mechanism: gssapi\n      principal: svc\n      keytab: /nonexistent/keytab\n", 6, "should be account@REALM" },
		{ "      mechanism: gssapi\n      principal: ldap/dc1@X\n      keytab: /nonexistent/keytab\n", 6, "should be account@REALM" },
		{ "      mechanism: gssapi\n      keytab: /nonexistent/keytab\n", 6, "/nonexistent/keytab does not exist" },
		{ "      mechanism: kerberos\n", 5, "simple" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_bad(bind_with(bad[i].lines), bad[i].line, bad[i].says);
}

static void test_keytabs(void **state)
{
	static const struct { const char *content; mode_t mode; const char *says; } bad[] = {
		{ "", 0600, "is empty" }, { "\005\002x", 0644, "open to everybody" }, { "\005\002x", 0660, "written by its group" }, { "secret\n", 0600, "is not a keytab: export it" },
		{ "\005\003x", 0600, "is not a keytab" }, { "\005", 0600, "is not a keytab" },
	};
	char path[] = "/tmp/test-settings-keytab-XXXXXX", lines[256];
	struct settings settings;
	close(mkstemp(path));
	snprintf(lines, sizeof lines, "      mechanism: gssapi\n      keytab: %s\n      principal: svc@EXAMPLE.COM\n", path);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		put(path, bad[i].content, bad[i].mode);
		assert_bad(bind_with(lines), 6, bad[i].says);
	}
	put(path, "\005\002x", 0640);
	assert_good(bind_with(lines), &settings);
	assert_string_equal(settings_directory_at(&settings, 0)->bind_keytab, path);
	settings_clear(&settings);
	unlink(path);
}

static EVP_PKEY *make_certificate(const char *path, long from, long to)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_gmtime_adj(X509_getm_notBefore(certificate), from);
	X509_gmtime_adj(X509_getm_notAfter(certificate), to);
	X509_set_pubkey(certificate, key);
	assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
	FILE *file = fopen(path, "w");
	PEM_write_X509(file, certificate);
	fclose(file);
	X509_free(certificate);
	return key;
}

static void put_key(const char *path, EVP_PKEY *take_key, mode_t mode)
{
	FILE *file = fopen(path, "w");
	PEM_write_PrivateKey(file, take_key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
	EVP_PKEY_free(take_key);
	assert_int_equal(chmod(path, mode), 0);
}

static void test_client_certificates(void **state)
{
	char certificate[] = "/tmp/test-settings-cert-XXXXXX", key[] = "/tmp/test-settings-key-XXXXXX", lines[300];
	struct settings settings;
	close(mkstemp(certificate));
	close(mkstemp(key));
	snprintf(lines, sizeof lines, "      mechanism: external\n      certificate: %s\n      key: %s\n", certificate, key);
	put_key(key, make_certificate(certificate, -60, 3600), 0600);
	assert_good(bind_with(lines), &settings);
	settings_clear(&settings);
	chmod(key, 0644);
	assert_bad(bind_with(lines), 7, "open to everybody");
	put_key(key, EVP_EC_gen("P-256"), 0600);
	assert_bad(bind_with(lines), 7, "is not the key of");
	put(key, "nothing\n", 0600);
	assert_bad(bind_with(lines), 7, "holds no private key in PEM without a passphrase");
	put_key(key, make_certificate(certificate, -3600, -60), 0600);
	assert_bad(bind_with(lines), 6, "has expired");
	put_key(key, make_certificate(certificate, 3600, 7200), 0600);
	assert_bad(bind_with(lines), 6, "is not valid yet");
	put(certificate, "nothing\n", 0644);
	assert_bad(bind_with(lines), 6, "holds no certificate in PEM");
	unlink(certificate);
	unlink(key);
}

/* Root may read everything; the unit's user may not. */
static void test_another_reader(void **state)
{
	struct file_reader reader = { "nobody", 65534, 65534 };
	char why[600];
	if (geteuid() != 0)
		skip();
	assert_true(file_reader_fault(password_file, &reader, why, sizeof why));
	assert_non_null(strstr(why, "cannot be read by nobody"));
	assert_int_equal(chown(password_file, 0, 65534) | chmod(password_file, 0640), 0);
	assert_false(file_reader_fault(password_file, &reader, why, sizeof why));
	assert_int_equal(chown(password_file, 1000, 65534), 0);
	assert_true(file_reader_fault(password_file, &reader, why, sizeof why));
	assert_non_null(strstr(why, "belongs to user 1000"));
	assert_int_equal(chown(password_file, 0, 0) | chmod(password_file, 0600), 0);
	assert_false(file_reader_fault(password_file, NULL, why, sizeof why));
}

static void test_missing_scope_is_an_error(void **state)
{
	struct settings settings;
	struct config_errors errors = { 0 };
	assert_int_equal(settings_parse("test.yaml", file_with("", "      exclude_bases: [\"DC=corp\"]\n"), &settings, &errors), STATUS_LOCAL_CONFIG);
	assert_non_null(strstr(errors.items[0].text, "scope.users"));
	config_errors_clear(&errors);
}

static void test_missing_file(void **state)
{
	static const char text[] = "state_directory: /nonexistent/state\ndirectories:\n  - name: corp\n    servers: [dc1]\n    bind: {dn: a@b, password_file: /nonexistent/password}\n    scope: {users: none}\n";
	assert_bad(text, 5, "does not exist");
}

static void test_names_are_unique(void **state)
{
	char text[4096];
	const char *one = file_with("", SELECTED);
	const char *entry = strchr(one, '\n') + 1, *end = strstr(one, "state_directory");
	snprintf(text, sizeof text, "%.*s%s", (int)(end - one), one, entry);
	assert_bad(text, 10, "two directories");
}

static void test_reloadable(void **state)
{
	struct settings before, after;
	assert_good(file_with("", SELECTED), &before);
	assert_good(file_with("limits: {per_minute: 7}\nlog: {level: debug}\n", "      users: none\n"), &after);
	char *fixed = config_not_reloadable(settings_keys, &before, &after);
	assert_null(fixed);
	settings_clear(&after);
	assert_good(file_with("control_socket: /tmp/other.sock\n", SELECTED), &after);
	fixed = config_not_reloadable(settings_keys, &before, &after);
	assert_non_null(strstr(fixed, "control_socket"));
	free(fixed);
	settings_clear(&before);
	settings_clear(&after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_everything), cmocka_unit_test(test_judgements), cmocka_unit_test(test_missing_scope_is_an_error),
		cmocka_unit_test(test_missing_file), cmocka_unit_test(test_names_are_unique), cmocka_unit_test(test_reloadable), cmocka_unit_test(test_flavor_ldap), cmocka_unit_test(test_discovery), cmocka_unit_test(test_names_and_servers), cmocka_unit_test(test_files), cmocka_unit_test(test_bind_keys), cmocka_unit_test(test_keytabs), cmocka_unit_test(test_client_certificates),
		cmocka_unit_test(test_another_reader),
	};
	return cmocka_run_group_tests_name("settings", tests, make_file, remove_file);
}
