/* jose-tool: proto/jose from the command line, for tests against other implementations. Not installed; keys stand in the clear.
 *
 *     jose-tool keygen sig|enc                    prints a private JWK
 *     jose-tool public KEY                        prints the public JWK
 *     jose-tool thumbprint KEY                    prints the key's id
 *     jose-tool sign KEY TYP       < payload      prints a JWS
 *     jose-tool verify KEY TYP     < JWS          prints the payload
 *     jose-tool encrypt KEY        < plaintext    prints a JWE
 *     jose-tool decrypt KEY        < JWE          prints the plaintext
 *
 * KEY is a file with a JWK; its "use" says what it is for. A failed check is named on standard error, with exit status 1. */
#include <stdio.h>
#include <string.h>

#include "proto/jose.h"

#define INPUT_LIMIT (1 << 20)

static int fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	return 1;
}

static int print(struct bytes text)
{
	return fwrite(text.data, 1, text.size, stdout) == text.size ? 0 : fail("output");
}

/* A whole stream, NUL-terminated; a last newline is dropped where `line`. */
static char *read_all(FILE *stream, bool line, size_t *ret_size)
{
	char *text = malloc(INPUT_LIMIT + 1);

	if (!text || !stream)
		exit(fail("input"));
	*ret_size = fread(text, 1, INPUT_LIMIT, stream);
	if (line && *ret_size > 0 && text[*ret_size - 1] == '\n')
		--*ret_size;
	text[*ret_size] = '\0';
	return text;
}

static struct jose_key *read_key(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t size;
	AUTO_FREE char *text = read_all(file, true, &size);
	json_t *jwk = jose_json_parse(bytes_of(text, size));
	const char *use = json_string_value(json_object_get(jwk, "use"));
	struct jose_key *key;

	fclose(file);
	if (jose_key_from_jwk(jwk, use && strcmp(use, "enc") == 0 ? JOSE_DECRYPT : JOSE_SIGN, json_object_get(jwk, "d") != NULL, &key) != STATUS_OK)
		exit(fail("key"));
	json_decref(jwk);
	return key;
}

static int do_keygen(char **arguments)
{
	AUTO_SECRET struct secret text = SECRET_EMPTY;
	struct jose_key *key;

	if (jose_key_generate(strcmp(arguments[0], "enc") == 0 ? JOSE_DECRYPT : JOSE_SIGN, &key) != STATUS_OK)
		return fail("keygen");
	enum status status = jose_key_private_jwk(key, &text);
	jose_key_free(key);
	return status == STATUS_OK ? print(secret_bytes(&text)) : fail("keygen");
}

static int do_public(char **arguments)
{
	struct jose_key *key = read_key(arguments[0]);
	json_t *jwk = jose_key_public_jwk(key);
	int failed = json_dumpf(jwk, stdout, JSON_COMPACT);

	json_decref(jwk);
	jose_key_free(key);
	return failed ? fail("public") : 0;
}

static int do_thumbprint(char **arguments)
{
	struct jose_key *key = read_key(arguments[0]);
	int code = print(bytes_of_string(jose_key_id(key)));

	jose_key_free(key);
	return code;
}

static int do_sign(char **arguments)
{
	struct jose_key *key = read_key(arguments[0]);
	size_t size;
	AUTO_FREE char *payload = read_all(stdin, false, &size), *jws = NULL;
	enum status status = jose_sign(key, arguments[1], bytes_of(payload, size), &jws);

	jose_key_free(key);
	return status == STATUS_OK ? print(bytes_of_string(jws)) : fail(status_code(status));
}

static int do_verify(char **arguments)
{
	const char *const typs[] = { arguments[1], NULL };
	struct jose_keys *keys = jose_keys_new();
	size_t size, payload_size;
	AUTO_FREE char *jws = read_all(stdin, true, &size), *payload = NULL;

	if (!keys || jose_keys_add(keys, read_key(arguments[0])) != STATUS_OK)
		return fail("key");
	enum jose_reason reason = jose_verify(bytes_of(jws, size), typs, keys, &payload, &payload_size, NULL, NULL);
	jose_keys_free(keys);
	return reason == JOSE_OK ? print(bytes_of(payload, payload_size)) : fail(jose_reason_name(reason));
}

static int do_encrypt(char **arguments)
{
	struct jose_key *key = read_key(arguments[0]);
	size_t size;
	AUTO_FREE char *plaintext = read_all(stdin, false, &size), *jwe = NULL;
	enum status status = jose_encrypt(key, bytes_of(plaintext, size), &jwe);

	jose_key_free(key);
	return status == STATUS_OK ? print(bytes_of_string(jwe)) : fail(status_code(status));
}

static int do_decrypt(char **arguments)
{
	struct jose_key *const keys[] = { read_key(arguments[0]), NULL };
	AUTO_SECRET struct secret plaintext = SECRET_EMPTY;
	size_t size;
	AUTO_FREE char *jwe = read_all(stdin, true, &size);
	enum jose_reason reason = jose_decrypt(bytes_of(jwe, size), keys, &plaintext);

	jose_key_free(keys[0]);
	return reason == JOSE_OK ? print(secret_bytes(&plaintext)) : fail(jose_reason_name(reason));
}

static const struct {
	const char *name;
	int arguments;
	int (*run)(char **arguments);
} commands[] = {
	{ "keygen", 1, do_keygen }, { "public", 1, do_public }, { "thumbprint", 1, do_thumbprint }, { "sign", 2, do_sign },
	{ "verify", 2, do_verify }, { "encrypt", 1, do_encrypt }, { "decrypt", 1, do_decrypt },
};

int main(int argc, char **argv)
{
	secret_heap_init();
	secret_json_init();
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(*commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0 && argc == 2 + commands[i].arguments)
			return commands[i].run(argv + 2);
	return fail("usage: jose-tool keygen|public|thumbprint|sign|verify|encrypt|decrypt …");
}
