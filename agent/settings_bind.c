/* What a table of keys cannot say of `bind`: each mechanism has keys of its own, needs them, and takes no others; and the files must be what they should be. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <time.h>

#include "agent/account.h"
#include "agent/directory/directory.h"
#include "agent/gate/scope.h"
#include "agent/settings_judge.h"

enum { SIMPLE = 1 << BIND_SIMPLE, GSSAPI = 1 << BIND_GSSAPI, SPNEGO = 1 << BIND_GSS_SPNEGO, EXTERNAL = 1 << BIND_EXTERNAL, KERBEROS = GSSAPI | SPNEGO };
static const char *const MECHANISMS[] = { "simple", "gssapi", "gss-spnego", "external" };

/* Which mechanisms need a key, and which may have it. */
static const struct key_row {
	const char *member;
	size_t offset;
	unsigned needed, taken;
	const char *wanted;
} KEYS[] = {
	{ "bind.dn", offsetof(struct settings_directory, bind_dn), SIMPLE, SIMPLE | EXTERNAL, "name the account that the agent binds as, by DN or userPrincipalName" },
	{ "bind.password_file", offsetof(struct settings_directory, bind_password_file), SIMPLE, SIMPLE, "name the file with that account's password" },
	{ "bind.principal", offsetof(struct settings_directory, bind_principal), 0, KERBEROS, NULL },
	{ "bind.keytab", offsetof(struct settings_directory, bind_keytab), KERBEROS, KERBEROS, "name the keytab with the account's keys" },
	{ "bind.certificate", offsetof(struct settings_directory, bind_certificate), EXTERNAL, EXTERNAL, "name the file with the client certificate in PEM" },
	{ "bind.key", offsetof(struct settings_directory, bind_key), EXTERNAL, EXTERNAL, "name the file with that certificate's private key in PEM" },
};

static void judge_keys(const struct judgement *judgement, const struct settings_directory *directory)
{
	unsigned mechanism = 1U << directory->bind_mechanism;
	const char *name = MECHANISMS[directory->bind_mechanism];
	for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
		const struct key_row *row = &KEYS[i];
		bool given = *(char *const *)((const char *)directory + row->offset) != NULL;
		if (!given && (row->needed & mechanism) != 0)
			find_fault(judgement, row->member, "is missing, and mechanism %s needs it: %s", name, row->wanted);
		if (given && (row->taken & mechanism) == 0)
			find_fault(judgement, row->member, "means nothing with mechanism %s: remove it, or name the mechanism that it belongs to", name);
	}
}

static bool judge_private_file(const struct judgement *judgement, const char *member, const char *path, bool (*fault)(const char *path, char *why, size_t capacity))
{
	char why[600];
	if (!path || (!fault(path, why, sizeof why) && !file_reader_fault(path, judgement->reader, why, sizeof why)))
		return path != NULL;
	find_fault(judgement, member, "%s", why);
	return false;
}

/* MIT's format: 5, then 1 or 2 (krb5's keytab file format). */
static bool is_keytab(const char *path)
{
	uint8_t head[2] = { 0 };
	FILE *file = fopen(path, "re");
	bool found = file && fread(head, 1, sizeof head, file) == sizeof head && head[0] == 5 && (head[1] == 1 || head[1] == 2);
	if (file)
		fclose(file);
	return found;
}

static int no_passphrase(char *buffer, int size, int writing, void *arg) { return -1; }

static void judge_certificate(const struct judgement *judgement, const struct settings_directory *directory)
{
	BIO *bio = BIO_new_file(directory->bind_certificate, "r"), *key_bio = BIO_new_file(directory->bind_key, "r");
	X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
	EVP_PKEY *key = key_bio ? PEM_read_bio_PrivateKey(key_bio, NULL, no_passphrase, NULL) : NULL;
	if (!certificate)
		find_fault(judgement, "bind.certificate", "%s holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", directory->bind_certificate);
	else if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
		find_fault(judgement, "bind.certificate", "%s has expired: ask its CA for a new one", directory->bind_certificate);
	else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		find_fault(judgement, "bind.certificate", "%s is not valid yet: look at this host's clock", directory->bind_certificate);
	if (!key)
		find_fault(judgement, "bind.key", "%s holds no private key in PEM without a passphrase (-----BEGIN PRIVATE KEY-----)", directory->bind_key);
	else if (certificate && X509_check_private_key(certificate, key) != 1)
		find_fault(judgement, "bind.key", "%s is not the key of %s", directory->bind_key, directory->bind_certificate);
	EVP_PKEY_free(key);
	X509_free(certificate);
	BIO_free(key_bio);
	BIO_free(bio);
	ERR_clear_error();
}

static void judge_names(const struct judgement *judgement, const struct settings_directory *directory)
{
	const char *dn = directory->bind_dn, *principal = directory->bind_principal;
	const char *at = principal ? strrchr(principal, '@') : NULL;
	if (dn && directory->flavor == DIRECTORY_ACTIVE_DIRECTORY && (strchr(dn, '=') ? !dn_valid(dn) : !strchr(dn, '@') && !strchr(dn, '\\')))
		find_fault(judgement, "bind.dn", "\"%s\" is neither a DN, nor a userPrincipalName (svc@corp.example.com), nor DOMAIN\\name", dn);
	if (principal && (!at || at == principal || !at[1] || strpbrk(principal, " \t/")))
		find_fault(judgement, "bind.principal", "\"%s\" should be account@REALM (svc-writeback@CORP.EXAMPLE.COM)", principal);
}

void judge_bind(const struct judgement *judgement, const struct settings_directory *directory)
{
	unsigned mechanism = 1U << directory->bind_mechanism;
	judge_keys(judgement, directory);
	judge_names(judgement, directory);
	if (mechanism == SIMPLE)
		judge_private_file(judgement, "bind.password_file", directory->bind_password_file, file_secret_fault);
	if ((mechanism & KERBEROS) && judge_private_file(judgement, "bind.keytab", directory->bind_keytab, file_private_fault) && !is_keytab(directory->bind_keytab))
		find_fault(judgement, "bind.keytab", "%s is not a keytab: export it with ktpass, samba-tool or ktutil", directory->bind_keytab);
	if (mechanism == EXTERNAL) {
		bool key = judge_private_file(judgement, "bind.key", directory->bind_key, file_private_fault);
		bool certificate = judge_private_file(judgement, "bind.certificate", directory->bind_certificate, file_plain_fault);
		if (key && certificate)
			judge_certificate(judgement, directory);
	}
}
