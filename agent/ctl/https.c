#include "agent/ctl/https.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define ANSWER_MAX 65536

struct answer {
	char *data;
	size_t size;
};

static size_t collect(char *data, size_t one, size_t count, void *arg)
{
	struct answer *answer = arg;
	if (answer->size + count > ANSWER_MAX)
		return 0;
	memcpy(answer->data + answer->size, data, count);
	answer->size += count;
	answer->data[answer->size] = 0;
	return count;
}

static void set_options(CURL *curl, const struct https_options *options, const char *url, struct answer *answer)
{
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 15L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, 30L);
	curl_easy_setopt(curl, CURLOPT_MAXFILESIZE, (long)ANSWER_MAX);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "writebackctl/" WRITEBACKD_VERSION);
	curl_easy_setopt(curl, CURLOPT_PROXY, options->proxy ? options->proxy : "");
	if (options->ca_file) {
		curl_easy_setopt(curl, CURLOPT_CAINFO, options->ca_file);
		curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
	}
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
}

enum status https_request(const struct https_options *options, const char *url, const char *body, const char *content_type, long *ret_http_status, char **ret_body,
                          char *why, size_t capacity)
{
	struct answer answer = { calloc(1, ANSWER_MAX + 1), 0 };
	CURL *curl = curl_easy_init();
	if (!curl || !answer.data) {
		snprintf(why, capacity, "out of memory");
		curl_easy_cleanup(curl);
		free(answer.data);
		return STATUS_AGENT_INTERNAL;
	}
	char header[128], error[CURL_ERROR_SIZE] = "";
	set_options(curl, options, url, &answer);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
	snprintf(header, sizeof header, "Content-Type: %s", content_type ? content_type : "");
	struct curl_slist *headers = body ? curl_slist_append(NULL, header) : NULL;
	if (body) {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	}
	CURLcode code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, ret_http_status);
	curl_slist_free_all(headers);
	curl_easy_cleanup(curl);
	if (code == CURLE_OK) {
		*ret_body = answer.data;
		return STATUS_OK;
	}
	snprintf(why, capacity, "%s: %s", url, error[0] ? error : curl_easy_strerror(code));
	free(answer.data);
	return code == CURLE_PEER_FAILED_VERIFICATION ? STATUS_TLS_UNTRUSTED : STATUS_CHANNEL_REFUSED;
}
