{{/*
The pod, which is the same in a Deployment and in a StatefulSet but for its volume.
*/}}
{{- define "outlit-proxy.pod" -}}
metadata:
  {{- /* Not the chart's version: a new one that changes no pod starts none. */}}
  labels: {{- merge (include "outlit-proxy.selector" . | fromYaml) .Values.podLabels .Values.commonLabels | toYaml | nindent 4 }}
  annotations:
    {{- /* A change of the settings is a new pod. */}}
    checksum/config: {{ include "outlit-proxy.toml" . | sha256sum }}
    {{- if or .Values.opsToken.value .Values.gatewayApiKey.value .Values.redis.password }}
    checksum/secrets: {{ list .Values.opsToken.value .Values.gatewayApiKey.value .Values.redis.password | join "\n" | sha256sum }}
    {{- end }}
    kubectl.kubernetes.io/default-container: proxy
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- /* Of each Service of the namespace they would make variables, of which some would read like settings. */}}
  enableServiceLinks: false
  automountServiceAccountToken: false
  serviceAccountName: {{ include "outlit-proxy.serviceAccountName" . }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | default (include "outlit-proxy.leastTermination" .) }}
  securityContext: {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.extraInitContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: proxy
      image: {{ include "outlit-proxy.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      securityContext: {{- toYaml .Values.securityContext | nindent 8 }}
      env:
        {{- include "outlit-proxy.settingsEnv" . | nindent 8 }}
        {{- /* Of this container alone: no other command needs Outlit's key, so the pod of the test has none. */}}
        {{- if include "outlit-proxy.gatewayApiKeySecret" . }}
        - name: OUTLIT_PROXY_GATEWAY_API_KEY_FILE
          value: /run/secrets/outlit-proxy-gateway/api-key
        {{- end }}
        - name: OUTLIT_PROXY_FRONT_LISTEN
          value: {{ printf "%s:8080" .Values.listenHost | quote }}
        - name: OUTLIT_PROXY_OPS_LISTEN
          value: {{ printf "%s:9090" .Values.listenHost | quote }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: front
          containerPort: 8080
          protocol: TCP
        - name: ops
          containerPort: 9090
          protocol: TCP
      {{- /* What stands in the values is added to these; Outlit being away fails none of them. */}}
      startupProbe: {{- toYaml (merge (dict "httpGet" (dict "path" "/startupz" "port" "ops")) .Values.startupProbe) | nindent 8 }}
      livenessProbe: {{- toYaml (merge (dict "httpGet" (dict "path" "/livez" "port" "ops")) .Values.livenessProbe) | nindent 8 }}
      readinessProbe: {{- toYaml (merge (dict "httpGet" (dict "path" "/readyz" "port" "ops")) .Values.readinessProbe) | nindent 8 }}
      {{- if .Values.preStopSleepSeconds }}
      lifecycle:
        preStop:
          exec:
            command: ["sleep", {{ .Values.preStopSleepSeconds | toString | quote }}]
      {{- end }}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        {{- include "outlit-proxy.settingsMounts" . | nindent 8 }}
        {{- if include "outlit-proxy.gatewayApiKeySecret" . }}
        - name: gateway
          mountPath: /run/secrets/outlit-proxy-gateway
          readOnly: true
        {{- end }}
        {{- if eq .Values.mode "statefulset" }}
        - name: data
          mountPath: /data
        {{- end }}
        - name: tmp
          mountPath: /tmp
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "outlit-proxy.settingsVolumes" . | nindent 4 }}
    {{- with include "outlit-proxy.gatewayApiKeySecret" . }}
    - name: gateway
      secret:
        secretName: {{ splitList "/" . | first }}
        defaultMode: 0440
        items:
          - key: {{ splitList "/" . | last }}
            path: api-key
    {{- end }}
    {{- if and (eq .Values.mode "statefulset") (not .Values.persistence.enabled) }}
    - name: data
      emptyDir:
        sizeLimit: {{ .Values.persistence.size }}
    {{- end }}
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $ours := dict "labelSelector" (dict "matchLabels" (include "outlit-proxy.selector" $ | fromYaml)) }}
    - {{- hasKey . "labelSelector" | ternary . (merge $ours .) | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
{{- end }}
