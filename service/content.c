#include "service/content.h"

#include <openssl/evp.h>
#include <openssl/params.h>

static EVP_MAC_CTX *hmac(const uint8_t key[32])
{
	static char digest[] = "SHA256";
	const OSSL_PARAM parameters[] = { OSSL_PARAM_utf8_string("digest", digest, sizeof digest - 1), OSSL_PARAM_END };
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *context = mac != NULL ? EVP_MAC_CTX_new(mac) : NULL;
	EVP_MAC_free(mac);
	if (context != NULL && EVP_MAC_init(context, key, 32, parameters) == 1)
		return context;
	EVP_MAC_CTX_free(context);
	return NULL;
}

static int hash_update(const char *text, size_t size, void *arg)
{
	return EVP_MAC_update(arg, (const unsigned char *)text, size) == 1 ? 0 : -1;
}

bool content_hash(const uint8_t key[32], json_t *body, uint8_t out[32])
{
	json_t *compared = json_copy(body);
	EVP_MAC_CTX *context = hmac(key);
	size_t size = 0;
	json_object_del(compared, "wait");
	json_object_del(compared, "new_password");
	json_object_del(compared, "old_password");
	bool good = compared != NULL && context != NULL && json_dump_callback(compared, hash_update, context, JSON_COMPACT | JSON_SORT_KEYS) == 0 &&
	            EVP_MAC_final(context, out, &size, 32) == 1 && size == 32;
	EVP_MAC_CTX_free(context);
	json_decref(compared);
	return good;
}

bool content_secret_hash(const uint8_t key[32], struct bytes new_password, struct bytes old_password, uint8_t out[32])
{
	EVP_MAC_CTX *context = hmac(key);
	size_t size = 0;
	/* U+0000 is in no password: it parts the two. */
	bool good = context != NULL && EVP_MAC_update(context, new_password.data, new_password.size) == 1;
	if (good && old_password.size > 0)
		good = EVP_MAC_update(context, (const uint8_t[1]){ 0 }, 1) == 1 && EVP_MAC_update(context, old_password.data, old_password.size) == 1;
	good = good && EVP_MAC_final(context, out, &size, 32) == 1 && size == 32;
	EVP_MAC_CTX_free(context);
	return good;
}
