{{/*
What the schema cannot say: values that are right one by one and wrong together. All of them are reported at once,
one line each, with what to write instead.
*/}}
{{- define "outlit-proxy.check" -}}
{{- $problems := concat
  (include "outlit-proxy.bufferProblems" . | fromJsonArray)
  (include "outlit-proxy.secretProblems" . | fromJsonArray)
  (include "outlit-proxy.variableProblems" . | fromJsonArray)
  (include "outlit-proxy.workloadProblems" . | fromJsonArray)
  (include "outlit-proxy.routeProblems" . | fromJsonArray) -}}
{{- if $problems -}}
{{- fail (printf "\n\n%s\n" (join "\n" $problems)) -}}
{{- end -}}
{{- end }}

{{- define "outlit-proxy.bufferProblems" -}}
{{- $problems := list -}}
{{- $redis := .Values.redis -}}
{{- $named := or $redis.url $redis.existingSecretUrlKey -}}
{{- if eq .Values.mode "deployment" -}}
  {{- if not $named -}}
    {{- $problems = append $problems "redis.url: is empty, and the pods of mode \"deployment\" keep nothing themselves: name your Redis, as redis://redis.example:6379, or write mode: statefulset, which keeps events in a file on a volume" -}}
  {{- end -}}
{{- else -}}
  {{- if or $named $redis.password $redis.existingSecret -}}
    {{- $problems = append $problems "redis: is for mode \"deployment\", and this is mode \"statefulset\", whose pods keep events in a file: leave redis.* out, or write mode: deployment" -}}
  {{- end -}}
  {{- $held := include "outlit-proxy.bytes" (dig "buffer" "max_bytes" "4GB" .Values.config) | int64 -}}
  {{- $dead := include "outlit-proxy.bytes" (dig "dead" "max_bytes" "500MB" .Values.config) | int64 -}}
  {{- $size := include "outlit-proxy.bytes" .Values.persistence.size | int64 -}}
  {{- if lt $size (add $held $dead) -}}
    {{- $problems = append $problems (printf "persistence.size: %s is less than config.buffer.max_bytes and config.dead.max_bytes together (%d MB): the disk would be full before the proxy refuses anything; ask for more, or lower these" .Values.persistence.size (div (add $held $dead) 1000000)) -}}
  {{- else if not .Values.persistence.enabled -}}
    {{- /* A file is larger than what it holds. A full disk is answered with 503; a full emptyDir by the kubelet. */ -}}
    {{- $least := add (div (mul (add $held $dead) 5) 4) 64000000 -}}
    {{- if lt $size $least -}}
      {{- $problems = append $problems (printf "persistence.size: %s leaves too little room beside config.buffer.max_bytes and config.dead.max_bytes: the kubelet evicts a pod whose emptyDir is full, with all that it holds, before the proxy refuses anything; write %dM or more, or lower these" .Values.persistence.size (div (add $least 999999) 1000000)) -}}
    {{- end -}}
  {{- end -}}
  {{- if and (not .Values.persistence.enabled) (ne (dig "delivery" "on_exit" "keep" .Values.config) "drain") -}}
    {{- $problems = append $problems "persistence.enabled: is false, so what a pod holds is gone with it: leave it on, or write config.delivery.on_exit: drain, which sends as much as config.delivery.grace allows before a pod ends" -}}
  {{- end -}}
{{- end -}}
{{- if $redis.url -}}
  {{- if not (regexMatch "^(rediss?|unix|redis\\+sentinel|redis\\+cluster)://" $redis.url) -}}
    {{- $problems = append $problems "redis.url: is not the URL of a Redis: write redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://, and what follows it" -}}
  {{- end -}}
  {{- if regexMatch "^[a-z+]+://[^@/]*:[^@/]*@" $redis.url -}}
    {{- $problems = append $problems "redis.url: holds a password, which everybody who may look at the pods could read: put it into a Secret and name that in redis.existingSecret (the whole URL, with redis.existingSecretUrlKey)" -}}
  {{- end -}}
  {{- if and (regexMatch "^[a-z+]+://[^@/:]+@" $redis.url) (not (include "outlit-proxy.hasRedisPassword" .)) -}}
    {{- $problems = append $problems "redis.url: names a user, and there is no password for it: name the Secret that has it in redis.existingSecret, or leave the user out" -}}
  {{- end -}}
  {{- if $redis.existingSecretUrlKey -}}
    {{- $problems = append $problems "redis.url: is set together with redis.existingSecretUrlKey: leave one of them out" -}}
  {{- end -}}
{{- end -}}
{{- if and $redis.existingSecretUrlKey (not $redis.existingSecret) -}}
  {{- $problems = append $problems "redis.existingSecretUrlKey: names a key, but no Secret that has it: write its name into redis.existingSecret" -}}
{{- end -}}
{{- if and $redis.password $redis.existingSecret -}}
  {{- $problems = append $problems "redis.password: is set together with redis.existingSecret: leave one of them out" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end }}

{{/* "true" where the pods get a password for Redis: from the chart, or by variables of the user's own. */}}
{{- define "outlit-proxy.hasRedisPassword" -}}
{{- $has := or (include "outlit-proxy.redisPasswordSecret" .) .Values.extraEnvFrom -}}
{{- range .Values.extraEnv -}}
  {{- $has = or $has (hasPrefix "OUTLIT_PROXY_BUFFER_PASSWORD" (get . "name")) -}}
{{- end -}}
{{- if $has -}}true{{- end -}}
{{- end }}

{{/* "true" where the pods get a token of operations, likewise. */}}
{{- define "outlit-proxy.hasOpsToken" -}}
{{- $has := or (include "outlit-proxy.opsTokenSecret" .) .Values.extraEnvFrom -}}
{{- range .Values.extraEnv -}}
  {{- $has = or $has (hasPrefix "OUTLIT_PROXY_OPS_TOKEN" (get . "name")) -}}
{{- end -}}
{{- if $has -}}true{{- end -}}
{{- end }}

{{- define "outlit-proxy.secretProblems" -}}
{{- $problems := list -}}
{{- if and .Values.opsToken.value .Values.opsToken.existingSecret -}}
  {{- $problems = append $problems "opsToken.value: is set together with opsToken.existingSecret: leave one of them out" -}}
{{- end -}}
{{- if hasPrefix "ok_" .Values.opsToken.value -}}
  {{- $problems = append $problems "opsToken.value: begins with ok_, as an API key of Outlit does: make a token of your own, and write the API key into gatewayApiKey" -}}
{{- end -}}
{{- /* Not by the schema: what Helm says of a pattern repeats the value. */ -}}
{{- if and .Values.opsToken.value (not (regexMatch "^[!-~]{8,512}$" .Values.opsToken.value)) -}}
  {{- $problems = append $problems "opsToken.value: is no token: write 8 to 512 visible ASCII characters, without spaces" -}}
{{- end -}}
{{- if and .Values.gatewayApiKey.value .Values.gatewayApiKey.existingSecret -}}
  {{- $problems = append $problems "gatewayApiKey.value: is set together with gatewayApiKey.existingSecret: leave one of them out" -}}
{{- end -}}
{{- if and .Values.gatewayApiKey.value (not (regexMatch "^ok_[!-~]{5,509}$" .Values.gatewayApiKey.value)) -}}
  {{- $problems = append $problems "gatewayApiKey.value: is no secret API key of Outlit, which begins with ok_ and has 8 to 512 visible ASCII characters: write one (a token of your own belongs in opsToken)" -}}
{{- end -}}
{{- if and (include "outlit-proxy.gatewayApiKeySecret" .) (not (include "outlit-proxy.hasOpsToken" .)) -}}
  {{- $problems = append $problems "gatewayApiKey: is sent for callers that hold the token of operations, and there is none: set opsToken.existingSecret, or leave gatewayApiKey out" -}}
{{- end -}}
{{- $elsewhere := dict
  "front.listen" "the chart sets it: the pods listen on 8080; service.port is the Service's, listenHost the address"
  "ops.listen" "the chart sets it: the pods listen on 9090; listenHost is the address"
  "ops.token" "a ConfigMap is no place for a secret: name a Secret in opsToken.existingSecret"
  "buffer.url" "the chart sets it: write redis.url, or mode: statefulset for a file on a volume"
  "buffer.password" "a ConfigMap is no place for a secret: name a Secret in redis.existingSecret"
  "gateway.api_key" "a ConfigMap is no place for a secret: name a Secret in gatewayApiKey.existingSecret" -}}
{{- range $name := keys $elsewhere | sortAlpha -}}
  {{- $parts := splitList "." $name -}}
  {{- if hasKey (get $.Values.config (first $parts) | default dict) (last $parts) -}}
    {{- $problems = append $problems (printf "config.%s: %s" $name (get $elsewhere $name)) -}}
  {{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end }}

{{/*
Variables that would override what the chart sets, or what it computes a time, a size or a port from; secrets that would
stand in the pods, and those that would come twice.
*/}}
{{- define "outlit-proxy.variableProblems" -}}
{{- $problems := list -}}
{{- $set := dict
  "OUTLIT_PROXY_CONFIG" "write the settings into config"
  "OUTLIT_PROXY_FRONT_LISTEN" "the pods listen on 8080; service.port is the Service's, listenHost the address"
  "OUTLIT_PROXY_OPS_LISTEN" "the pods listen on 9090; listenHost is the address"
  "OUTLIT_PROXY_BUFFER_URL" "write redis.url or redis.existingSecretUrlKey, or mode: statefulset for a file on a volume" -}}
{{- $computed := dict
  "OUTLIT_PROXY_BUFFER_MAX_BYTES" "buffer.max_bytes"
  "OUTLIT_PROXY_DEAD_MAX_BYTES" "dead.max_bytes"
  "OUTLIT_PROXY_DELIVERY_GRACE" "delivery.grace"
  "OUTLIT_PROXY_DELIVERY_ON_EXIT" "delivery.on_exit"
  "OUTLIT_PROXY_DELIVERY_RATE_SHARE" "delivery.rate_share"
  "OUTLIT_PROXY_FRONT_MAX_PENDING_BYTES" "front.max_pending_bytes"
  "OUTLIT_PROXY_UPSTREAM_URL" "upstream.url" -}}
{{- $secret := dict
  "OUTLIT_PROXY_BUFFER_PASSWORD" "redis.existingSecret"
  "OUTLIT_PROXY_GATEWAY_API_KEY" "gatewayApiKey.existingSecret"
  "OUTLIT_PROXY_OPS_TOKEN" "opsToken.existingSecret" -}}
{{- $given := dict
  "OUTLIT_PROXY_BUFFER_PASSWORD" (include "outlit-proxy.redisPasswordSecret" .)
  "OUTLIT_PROXY_GATEWAY_API_KEY" (include "outlit-proxy.gatewayApiKeySecret" .)
  "OUTLIT_PROXY_OPS_TOKEN" (include "outlit-proxy.opsTokenSecret" .) -}}
{{- range .Values.extraEnv -}}
  {{- $name := get . "name" -}}
  {{- if get $given (trimSuffix "_FILE" $name) -}}
    {{- /* Named twice, once as a file, it would keep the proxy from starting. */ -}}
    {{- $value := get $secret (trimSuffix "_FILE" $name) | splitList "." | first -}}
    {{- $problems = append $problems (printf "extraEnv: %s is given by %s already: leave one of them out" $name $value) -}}
  {{- else if and (hasKey $secret $name) (hasKey . "value") -}}
    {{- $problems = append $problems (printf "extraEnv: %s holds a secret, which everybody who may look at the pods could read: name a Secret in %s, or write valueFrom" $name (get $secret $name)) -}}
  {{- else if hasKey $set $name -}}
    {{- $problems = append $problems (printf "extraEnv: %s is for the chart to set: %s" $name (get $set $name)) -}}
  {{- else if hasKey $computed $name -}}
    {{- $problems = append $problems (printf "extraEnv: the chart computes with %s and does not look into variables: write it into config.%s" $name (get $computed $name)) -}}
  {{- end -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end }}

{{- define "outlit-proxy.workloadProblems" -}}
{{- $problems := list -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "outlit-proxy.fullname" .)) -}}
  {{- $problems = append $problems (printf "fullnameOverride: the objects would be called %q, and a Service's name begins with a small letter and has only those, digits and \"-\": give another" (include "outlit-proxy.fullname" .)) -}}
{{- end -}}
{{- if and (eq .Values.image.tag "latest") (not .Values.image.digest) -}}
  {{- $problems = append $problems "image.tag: latest names another image tomorrow, and a rollback would not bring back the old one: name a version, or image.digest" -}}
{{- end -}}
{{- $least := include "outlit-proxy.leastTermination" . | int -}}
{{- with .Values.terminationGracePeriodSeconds -}}
  {{- if lt (int .) $least -}}
    {{- $problems = append $problems (printf "terminationGracePeriodSeconds: %v would kill the proxy before it has stopped: preStopSleepSeconds, config.delivery.grace and 5 s for closing are %d; leave it out, or lower those" . $least) -}}
  {{- end -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
  {{- if eq .Values.mode "statefulset" -}}
    {{- $problems = append $problems "autoscaling.enabled: is for mode \"deployment\": each pod of a statefulset has a fixed part of Outlit's limit, and what a pod that was scaled away still holds would wait on its volume; set replicaCount" -}}
  {{- end -}}
  {{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
    {{- $problems = append $problems (printf "autoscaling.minReplicas: %v is more than autoscaling.maxReplicas, %v" .Values.autoscaling.minReplicas .Values.autoscaling.maxReplicas) -}}
  {{- end -}}
{{- end -}}
{{- with dig "limits" "memory" "" .Values.resources -}}
  {{- $pending := dig "front" "max_pending_bytes" "256MB" $.Values.config -}}
  {{- $least := add (include "outlit-proxy.bytes" $pending | int64) 400000000 -}}
  {{- if lt (include "outlit-proxy.bytes" . | int64) $least -}}
    {{- $problems = append $problems (printf "resources.limits.memory: %v is not enough for config.front.max_pending_bytes, %v, and 400 MB for the rest: the pod would be killed for want of memory before it answers 503; raise it to %dM, or lower the setting" . $pending (div (add $least 999999) 1000000)) -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.tests.publicKey (not (include "outlit-proxy.opsTokenSecret" .)) -}}
  {{- $problems = append $problems "tests.publicKey: the test follows its event with the token of operations, and there is none: set opsToken.existingSecret, or leave tests.publicKey out" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end }}

{{- define "outlit-proxy.routeProblems" -}}
{{- $problems := list -}}
{{- $service := .Values.service -}}
{{- $ops := .Values.config.ops | default dict -}}
{{- if and .Values.tests.enabled (hasKey $ops "allowed_hosts") -}}
  {{- $asked := include "outlit-proxy.opsHost" . -}}
  {{- if not (or (has "*" $ops.allowed_hosts) (has $asked $ops.allowed_hosts)) -}}
    {{- $problems = append $problems (printf "config.ops.allowed_hosts: the test of this release asks %s, and would be refused: add that name, or write tests.enabled: false" $asked) -}}
  {{- end -}}
{{- end -}}
{{- if and $service.nodePort (eq $service.type "ClusterIP") -}}
  {{- $problems = append $problems "service.nodePort: a Service of type ClusterIP has none: leave it out, or write service.type: NodePort or LoadBalancer" -}}
{{- end -}}
{{- range $name := list "loadBalancerClass" "loadBalancerSourceRanges" -}}
  {{- if and (get $service $name) (ne $service.type "LoadBalancer") -}}
    {{- $problems = append $problems (printf "service.%s: a Service of type %s has no load balancer: leave it out, or write service.type: LoadBalancer" $name $service.type) -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
  {{- $problems = append $problems "ingress.hosts: is empty: write the names under which clients find the proxy, as [{host: t.example.com}]" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
  {{- $problems = append $problems "httpRoute.parentRefs: is empty: name the Gateway that takes the route, as [{name: public}]" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
  {{- $problems = append $problems "podMonitor.enabled: with serviceMonitor.enabled each pod would be scraped twice, and every sum be double: leave one of them out" -}}
{{- end -}}
{{- $problems | toJson -}}
{{- end }}
